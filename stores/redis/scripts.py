"""The Lua script of each mutation in Redis. Each uses one key, and on a single server also the user's index.

Numbers stay the decimal strings they arrived as, so Lua never formats one. In each script the first command
that may need memory comes before any other write, so a full server refuses the script before any change.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from stormcellar.stores.records import LATEST_MS, TOMBSTONE_MS


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and the digest that EVALSHA names it by."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # The protocol prescribes SHA-1; security does not depend on it.
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


# Shared by CREATE, APPLY and ROTATE; KEYS[1] is the record. Both functions take a range of ARGV, in pieces
# because Lua's stack is limited to 8000.
_PRELUDE = """
local key = KEYS[1]

local function put(first, last)
  for at = first, last, 4000 do redis.call('HSET', key, unpack(ARGV, at, math.min(at + 3999, last))) end
end

local function drop(first, last)
  for at = first, last, 4000 do redis.call('HDEL', key, unpack(ARGV, at, math.min(at + 3999, last))) end
end
"""

# Shared by APPLY and ROTATE: ARGV[1] the verifier presented, ARGV[2] now.
# live() returns the fields of the record and whether the verifier is the current one, or nothing.
# expected() takes the index in ARGV where the expectations begin; it returns whether they hold and the end.
_CONDITIONS = (
    f"""
local latest = {LATEST_MS}
"""
    + """
local now = tonumber(ARGV[2])

local function is_time(text) return string.find(text, '^%d+$') and tonumber(text) <= latest end

local function live()
  local found = redis.pcall('HMGET', key, '#v', '#p', '#g', '#u', '#c', '#r', '#s', '#e', '#d', '#m', '#a')
  if found.err or not found[1] or not found[10] then return end
  for i = 5, 9 do
    if not found[i] or not is_time(found[i]) then return end
  end
  if found[11] and not is_time(found[11]) then return end
  if tonumber(found[8]) <= now then return end
  local current = found[1] == ARGV[1]
  local graced = found[2] == ARGV[1] and now < (tonumber(found[3]) or 0)
  if current or graced then return found, current end
end

local function expected(at)
  local holds, last = true, at + 3 * tonumber(ARGV[at])
  for i = at + 1, last, 3 do
    local present, stored = ARGV[i + 1] == '1', redis.call('HGET', key, ARGV[i])
    if present and stored ~= ARGV[i + 2] or not present and stored then holds = false end
  end
  return holds, last
end
"""
)

SAMPLE = 4
"""How many entries of a user's index are checked when one is added."""

# Shared by CREATE, ROTATE and INDEX. Returns a sample of the index, empty as long as the index is small.
# GT: a writer with a slow clock must not make a fresh entry look old.
_INDEX = (
    f"""
local size = {SAMPLE}
"""
    + """
local function index(name, handle, added, stays)
  redis.call('ZADD', name, 'GT', added, handle)
  if tonumber(stays) > redis.call('PTTL', name) then redis.call('PEXPIRE', name, stays) end
  if redis.call('ZCARD', name) <= 2 * size then return {} end
  return redis.call('ZRANDMEMBER', name, size)
end
"""
)

# KEYS[1] the record, KEYS[2] the index of its user, if the script adds to it
# ARGV[1] how long the key stays, [2] handle, [3] time of the addition, [4] how long the index stays at least,
#     then the fields and values
# Returns 'created' or 'duplicate', and the sample of the index.
CREATE = Script(
    _PRELUDE
    + _INDEX
    + """
if redis.call('EXISTS', key) == 1 then return {'duplicate', {}} end
local sample = KEYS[2] and index(KEYS[2], ARGV[2], ARGV[3], ARGV[4]) or {}
put(5, #ARGV)
redis.call('PEXPIRE', key, ARGV[1])
return {'created', sample}
"""
)

# KEYS[1] the record
# ARGV[1] verifier, [2] now, [3] expires or '' to leave it, [4] how long the key then stays, then the keys
#     expected, put and dropped
# Returns the outcome; at the first activity of a clock minute instead 'applied', the user and the deadline.
APPLY = Script(
    _PRELUDE
    + _CONDITIONS
    + """
local found = live()
if not found then return 'gone' end
local holds, at = expected(5)
if not holds then return 'conflict' end
local first, last = at + 2, at + 1 + 2 * tonumber(ARGV[at + 1])
local later = ARGV[3] ~= '' and tonumber(ARGV[3]) > tonumber(found[8])
if later or ARGV[3] ~= '' and now > tonumber(found[7]) then
  local seen = now > tonumber(found[7]) and ARGV[2] or found[7]
  local near = math.min(last, first + 3999)
  redis.call('HSET', key, '#s', seen, '#e', later and ARGV[3] or found[8], unpack(ARGV, first, near))
  first = near + 1
end
put(first, last)
drop(last + 2, #ARGV)
if later then redis.call('PEXPIRE', key, ARGV[4]) end
local minute = 60000
if found[4] and ARGV[3] ~= '' and math.floor(now / minute) > math.floor(tonumber(found[7]) / minute) then
  return {'applied', found[4], found[9]}
end
return 'applied'
"""
)

# KEYS[1] the record, KEYS[2] the index of the user, if the script may add to it
# ARGV[1] verifier, [2] now, [3] new verifier, [4] rotated, [5] user or '', [6] auth or '', [7] client,
#     [8] expires, [9] deadline, [10] end of the grace or '', [11] how long the key stays,
#     [12] 1 if the user's index covers this binding, [13] how long the index stays at least, [14] channel,
#     [15] handle, then the keys expected, kept (-1: all), put and dropped
# Returns the outcome, the user bound before, and the sample of the index. 'unindexed': nothing was written;
#     the caller adds to the index and runs the script again.
# The pcall: a refused PUBLISH (an ACL without the channel) must not fail the script after its writes.
ROTATE = Script(
    _PRELUDE
    + _CONDITIONS
    + _INDEX
    + """
local found, current = live()
if not found then return {'gone', '', {}} end
local holds, at = expected(16)
local graced = ARGV[10] ~= ''
if not holds or graced and not current then return {'conflict', '', {}} end
local covered, sample = found[4] == ARGV[5] and tonumber(ARGV[9]) <= tonumber(found[9]), {}
if ARGV[5] ~= '' and ARGV[12] == '0' and not covered then
  if not KEYS[2] then return {'unindexed', '', {}} end
  sample = index(KEYS[2], ARGV[15], ARGV[4], ARGV[13])
end
local seen = tonumber(ARGV[4]) > tonumber(found[7]) and ARGV[4] or found[7]
local set = {'#v', ARGV[3], '#r', ARGV[4], '#m', ARGV[7], '#s', seen, '#e', ARGV[8], '#d', ARGV[9]}
local unset = {}
local function optional(name, value)
  if value == '' then
    unset[#unset + 1] = name
  else
    set[#set + 1], set[#set + 2] = name, value
  end
end
optional('#u', ARGV[5])
optional('#a', ARGV[6])
optional('#p', graced and found[1] or '')
optional('#g', ARGV[10])
redis.call('HSET', key, unpack(set))
local kept, keep = tonumber(ARGV[at + 1]), {}
at = at + 1
for i = at + 1, at + kept do keep[ARGV[i]] = true end
if kept >= 0 then
  at = at + kept
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if string.sub(name, 1, 1) ~= '#' and not keep[name] then unset[#unset + 1] = name end
  end
end
for i = 1, #unset, 4000 do redis.call('HDEL', key, unpack(unset, i, math.min(i + 3999, #unset))) end
local last = at + 1 + 2 * tonumber(ARGV[at + 1])
put(at + 2, last)
drop(last + 2, #ARGV)
redis.call('PEXPIRE', key, ARGV[11])
if not graced then redis.pcall('PUBLISH', ARGV[14], ARGV[15]) end
return {'applied', found[4] or '', sample}
"""
)

# KEYS[1] the record
# ARGV[1] channel, [2] handle, [3] now
# Returns how many records were removed, and the user. A full server refuses none of its commands: after a
# first write a script may use memory. A key of another type is removed too: it is in our key space, and
# revocation comes first. A tombstone is written again as it is: WAIT is for the last write of its own
# connection, and the session may have been ended over another.
DESTROY = Script(f"""
local found = redis.pcall('HMGET', KEYS[1], '#u', '#x')
if tonumber(found[2] or '') and redis.call('HLEN', KEYS[1]) == 1 then
  redis.pcall('HSET', KEYS[1], '#x', found[2])
  return {{0, ''}}
end
if redis.call('DEL', KEYS[1]) == 0 then return {{0, ''}} end
redis.pcall('HSET', KEYS[1], '#x', ARGV[3])
redis.call('PEXPIRE', KEYS[1], {TOMBSTONE_MS})
redis.pcall('PUBLISH', ARGV[1], ARGV[2])
return {{1, found[1] or ''}}
""")

# KEYS[1] the record
# Writes a tombstone again as it is, so that WAIT confirms it.
CONFIRM = Script("""
local ended = redis.pcall('HGET', KEYS[1], '#x')
if tonumber(ended or '') and redis.call('HLEN', KEYS[1]) == 1 then
  redis.pcall('HSET', KEYS[1], '#x', ended)
end
return 0
""")

# KEYS[1] the user's index
# ARGV[1] handle, [2] time of the addition, [3] how long the index stays at least
INDEX = Script(_INDEX + "return index(KEYS[1], ARGV[1], ARGV[2], ARGV[3])\n")

# ARGV[1] cursor, [2] pattern, [3] about how many keys, [4] user
# Returns the next cursor, and the keys whose record has this user, or cannot be read here, as while its slot
# moves. It has no KEYS, because it reads those that the node has.
OWNED = Script("""
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local keys = {}
for _, key in ipairs(page[2]) do
  local user = redis.pcall('HGET', key, '#u')
  if user == ARGV[4] or type(user) == 'table' then keys[#keys + 1] = key end
end
return {page[1], keys}
""")

# KEYS[1] the user's index, ARGV[1] the score of the entry '#scan'
# Marks the index as whole, unless it was evicted since the entry was added, or another scan began.
WHOLE = Script("""
if tonumber(redis.call('ZSCORE', KEYS[1], '#scan') or '') ~= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], 'inf', '#whole')
return redis.call('ZREM', KEYS[1], '#scan')
""")

# KEYS[1] the user's index, ARGV[1] cursor, [2] how many entries
# Returns the next cursor and handles. ZSCAN returns each entry that stays meanwhile; a handle may come twice.
PAGE = Script("""
local page = redis.pcall('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
if page.err then return {'0', {}} end
local handles = {}
for i = 1, #page[2], 2 do handles[#handles + 1] = page[2][i] end
return {page[1], handles}
""")

# KEYS[1] the user's index
# ARGV[1] remove entries with a score below this, [2...] handles
# The script reads the scores itself: a login may have added an entry again since the caller read it.
PRUNE = Script("""
for first = 2, #ARGV, 4000 do
  local scores = redis.call('ZMSCORE', KEYS[1], unpack(ARGV, first, math.min(first + 3999, #ARGV)))
  local stale = {}
  for i, added in ipairs(scores) do
    if added and tonumber(added) < tonumber(ARGV[1]) then stale[#stale + 1] = ARGV[first + i - 1] end
  end
  if #stale > 0 then redis.call('ZREM', KEYS[1], unpack(stale)) end
end
return 'pruned'
""")
