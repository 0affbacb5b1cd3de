"""The Lua script of each mutation in Redis, each on one key.

Numbers stay the decimal strings they arrived as, so that Lua never formats one. In each script the first
command that may need memory comes before any other write, so that a full server refuses it whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script on one key, and the digest by which the server remembers it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # The protocol's name for a script; nothing rests on its strength.
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


# Shared by APPLY and ROTATE. KEYS[1] the record; ARGV[1] the verifier presented, ARGV[2] now.
# take() walks ARGV from behind the script's fixed arguments, which end at `at`.
_PRELUDE = """
local key, now, at = KEYS[1], tonumber(ARGV[2]), 0

local function take()
  at = at + 1
  return ARGV[at]
end

local function live()
  local found = redis.pcall('HMGET', key, '#v', '#p', '#g', '#u', '#c', '#r', '#s', '#e', '#d', '#m')
  if found.err or not found[1] or not found[10] then return nil end
  local record = {user = found[4]}
  for i, name in ipairs({'created', 'rotated', 'seen', 'expires', 'deadline'}) do
    record[name] = tonumber(found[i + 4])
    if not record[name] then return nil end
  end
  if record.expires <= now then return nil end
  record.verifier, record.current = found[1], found[1] == ARGV[1]
  local graced = found[2] == ARGV[1] and now < (tonumber(found[3]) or 0)
  return (record.current or graced) and record or nil
end

local function expected()
  local holds = true
  for _ = 1, tonumber(take()) do
    local name, present, value = take(), take() == '1', take()
    local stored = redis.call('HGET', key, name)
    if present and stored ~= value or not present and stored then holds = false end
  end
  return holds
end

local function write()
  for _ = 1, tonumber(take()) do
    local name, value = take(), take()
    redis.call('HSET', key, name, value)
  end
  for _ = 1, tonumber(take()) do redis.call('HDEL', key, take()) end
end

local function set_or_drop(name, value)
  if value == '' then redis.call('HDEL', key, name) else redis.call('HSET', key, name, value) end
end
"""

# KEYS[1] the record
# ARGV[1] expires, then its fields and values
CREATE = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return 'duplicate' end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
return 'created'
""")

# KEYS[1] the record
# ARGV[1] verifier, [2] now, [3] expires or '' to leave it, then what is expected, put and dropped
APPLY = Script(
    _PRELUDE
    + """
at = 3
local record = live()
if not record then return 'gone' end
if not expected() then return 'conflict' end
write()
if ARGV[3] ~= '' then
  if now > record.seen then redis.call('HSET', key, '#s', ARGV[2]) end
  if tonumber(ARGV[3]) > record.expires then
    redis.call('HSET', key, '#e', ARGV[3])
    redis.call('PEXPIREAT', key, ARGV[3])
  end
end
return 'applied'
"""
)

# KEYS[1] the record
# ARGV[1] verifier, [2] now, [3] new verifier, [4] user or '', [5] auth or '', [6] client, [7] expires,
#     [8] deadline, [9] end of the grace or '', [10] 1 if the user's index covers this binding,
#     [11] channel, [12] handle, then what is expected, kept, put and dropped
# Returns the outcome and the user bound before. 'unindexed' wrote nothing: add to the index, then ask again.
# A push that is refused (an ACL without the channel) undoes nothing, hence the pcall.
ROTATE = Script(
    _PRELUDE
    + """
at = 12
local record = live()
if not record then return {'gone', ''} end
if not expected() or not record.current then return {'conflict', ''} end
local covered = record.user == ARGV[4] and tonumber(ARGV[8]) <= record.deadline
if ARGV[4] ~= '' and ARGV[10] == '0' and not covered then return {'unindexed', ''} end
redis.call('HSET', key, '#v', ARGV[3], '#r', ARGV[2], '#m', ARGV[6], '#e', ARGV[7], '#d', ARGV[8])
if now > record.seen then redis.call('HSET', key, '#s', ARGV[2]) end
set_or_drop('#u', ARGV[4])
set_or_drop('#a', ARGV[5])
set_or_drop('#p', ARGV[9] ~= '' and record.verifier or '')
set_or_drop('#g', ARGV[9])
local kept, keep = tonumber(take()), {}
for _ = 1, kept do keep[take()] = true end
if kept >= 0 then
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if string.sub(name, 1, 1) ~= '#' and not keep[name] then redis.call('HDEL', key, name) end
  end
end
write()
redis.call('PEXPIREAT', key, ARGV[7])
if ARGV[9] == '' then redis.pcall('PUBLISH', ARGV[11], ARGV[12]) end
return {'applied', record.user or ''}
"""
)

# KEYS[1] the record
# ARGV[1] channel, [2] handle
# Returns how many were removed, and the user. No command in it is refused for want of memory. A key of
# another type is removed too: it lies in our name space and revocation wins.
DESTROY = Script("""
local user = redis.pcall('HGET', KEYS[1], '#u')
if redis.call('DEL', KEYS[1]) == 0 then return {0, ''} end
redis.pcall('PUBLISH', ARGV[1], ARGV[2])
return {1, type(user) == 'string' and user or ''}
""")

# KEYS[1] the user's index
# ARGV[1] handle, [2] now, [3] when the index may expire at the earliest
# GT: a writer whose clock is behind must not make a fresh entry look old.
INDEX = Script("""
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
local left, clock = redis.call('PTTL', KEYS[1]), redis.call('TIME')
local expires = clock[1] * 1000 + math.floor(clock[2] / 1000) + left
if left < 0 or tonumber(ARGV[3]) > expires then redis.call('PEXPIREAT', KEYS[1], ARGV[3]) end
return 'indexed'
""")

# KEYS[1] the user's index
# ARGV[1] the score that an entry must be older than, then handles
# The score is read here, not by the caller: a login may have added the entry again since.
PRUNE = Script("""
for i = 2, #ARGV do
  local added = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if added and tonumber(added) < tonumber(ARGV[1]) then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 'pruned'
""")
