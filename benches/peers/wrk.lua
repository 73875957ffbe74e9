-- `wrk -s wrk.lua URL -- N`: N requests at once on each connection, 1 without.
-- Prints what wrk found in the form of `ringroad load --json`, histogram included.
function init(args)
    local depth = tonumber(args[1]) or 1
    batch = string.rep(wrk.format(), depth)
end

function request()
    return batch
end

function done(summary, latency)
    local seconds = summary.duration / 1e6
    local e = summary.errors
    local failed = e.connect + e.read + e.write + e.timeout + e.status
    local buckets = {}
    for i = 1, #latency do
        local value, count = latency(i)
        buckets[i] = string.format("[%d,%d]", value * 1000, count)
    end
    local errors = failed > 0 and string.format('["socket or status errors",%d]', failed) or ""
    io.write(string.format(
        '\nJSON {"target":"","protocol":"http","over":"wrk","connections":0,"size":0,"rate":null,"seconds":%f,' ..
        '"warm_up":0.0,"requests":%d,"requests_per_second":%f,"bytes_received":%d,"unanswered":0,"errors":[%s],' ..
        '"percentiles":[],"min_ns":%d,"mean_ns":%f,"histogram":[%s]}\n',
        seconds, summary.requests, summary.requests / seconds, summary.bytes, errors,
        latency.min * 1000, latency.mean * 1000, table.concat(buckets, ",")))
end
