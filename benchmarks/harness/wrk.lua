-- The requests that wrk sends: GET, each with the next of the cookies in a file.
--
--   wrk -t1 -c32 -d2s -s benchmarks/harness/wrk.lua http://127.0.0.1:8000/read -- COOKIES fixed|rotates
--
-- With `rotates` a request takes a cookie from the head of the queue and its response appends the new cookie, so
-- one request at a time uses a cookie. At the end the file holds the queue.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

local function request_from_queue()
  local cookie = cookies[head]
  cookies[head] = nil
  head = head + 1
  return wrk.format("GET", nil, {Cookie = cookie})
end

local function append_new_cookie(status, headers)
  local cookie = nil
  for name, value in pairs(headers) do
    if name:lower() == "set-cookie" then cookie = value:match("^[^;]+") end
  end
  if status ~= 200 or not cookie then
    failures = failures + 1
    return
  end
  cookies[tail] = cookie
  tail = tail + 1
end

function init(args)
  cookies, failures, head, rotates, file = {}, 0, 1, args[2] == "rotates", args[1]
  for line in io.lines(file) do table.insert(cookies, line) end
  tail = #cookies + 1
  if rotates then
    request, response = request_from_queue, append_new_cookie
    return
  end
  local requests, at = {}, 0
  for i, cookie in ipairs(cookies) do requests[i] = wrk.format("GET", nil, {Cookie = cookie}) end
  request = function()
    at = at % #requests + 1
    return requests[at]
  end
end

local function write_queue(thread)
  local left = thread:get("cookies")
  local out = assert(io.open(thread:get("file"), "w"))
  for i = thread:get("head"), thread:get("tail") - 1 do out:write(left[i], "\n") end
  out:close()
end

function done(summary, latency)
  local failed = threads[1]:get("failures")
  for _, count in pairs(summary.errors) do failed = failed + count end
  if threads[1]:get("rotates") then write_queue(threads[1]) end
  print(string.format(
    'RESULT {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f, "failures": %d}',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, failed
  ))
end
