-- Builds what scripts see: runs once per virtual machine, as the only chunk with the real globals.
-- Readonly tables are empty proxies, which every function that looks past metatables must know (`real`).
local native, info, functions, insecure = ...
local G = {}
local globals = _G

local type, tostring, tonumber, error, select = type, tostring, tonumber, error, select
local raw_next, raw_get, raw_set, raw_unpack = next, rawget, rawset, unpack
local raw_setmetatable, raw_getmetatable = setmetatable, getmetatable
local raw_pcall, raw_xpcall, raw_loadstring = pcall, xpcall, loadstring
local raw_collectgarbage = collectgarbage
local concat, raw_insert, raw_foreach = table.concat, table.insert, table.foreach
local byte, find, gsub = string.byte, string.find, string.gsub

local READONLY = "Attempt to modify a readonly table"
local real, visible_meta = {}, {}

-- A proxy that reads through to `t` and can't be written. `meta` is what getmetatable shows.
local function readonly(t, meta)
    local proxy = {}
    real[proxy] = t
    visible_meta[proxy] = meta
    return raw_setmetatable(proxy, {
        __index = t,
        __newindex = function() error(READONLY, 2) end,
    })
end

local function wrong(position, name, expected, got, count)
    local what = count < position and "no value" or type(got)
    error("bad argument #" .. position .. " to '" .. name .. "' (" .. expected .. " expected, got " .. what .. ")", 3)
end

-- The globals of the standard library.

for _, name in raw_next, {
    "_VERSION", "assert", "error", "gcinfo", "ipairs", "rawequal", "select", "tonumber", "tostring", "type",
} do
    G[name] = globals[name]
end

function G.next(...)
    local t, key = ...
    local source = real[t]
    if source then
        return raw_next(source, key)
    end
    if type(t) ~= "table" then wrong(1, "next", "table", t, select("#", ...)) end
    return raw_next(t, key)
end

local shown_next = G.next

function G.pairs(...)
    local t = ...
    if type(t) ~= "table" then wrong(1, "pairs", "table", t, select("#", ...)) end
    if real[t] then
        return shown_next, t, nil
    end
    return raw_next, t, nil
end

function G.rawget(...)
    local t, key = ...
    if type(t) ~= "table" then wrong(1, "rawget", "table", t, select("#", ...)) end
    return raw_get(real[t] or t, key)
end

function G.rawset(...)
    local t, key, value = ...
    local count = select("#", ...)
    if type(t) ~= "table" then wrong(1, "rawset", "table", t, count) end
    if count < 2 then wrong(2, "rawset", "value", nil, 1) end
    if count < 3 then wrong(3, "rawset", "value", nil, 2) end
    if real[t] then error(READONLY, 0) end
    return raw_set(t, key, value)
end

function G.getmetatable(...)
    local value = ...
    if select("#", ...) == 0 then wrong(1, "getmetatable", "value", nil, 0) end
    if real[value] then
        return visible_meta[value]
    end
    if type(value) == "string" then
        return visible_meta.string
    end
    return raw_getmetatable(value)
end

function G.setmetatable(...)
    local t, meta = ...
    local count = select("#", ...)
    if type(t) ~= "table" then wrong(1, "setmetatable", "table", t, count) end
    if count < 2 or meta ~= nil and type(meta) ~= "table" then
        error("bad argument #2 to 'setmetatable' (nil or table expected)", 2)
    end
    if real[t] then error(READONLY, 0) end
    local old = raw_getmetatable(t)
    if type(old) == "table" and raw_get(old, "__metatable") ~= nil then
        error("cannot change a protected metatable", 2)
    end
    -- A proxy has no metamethods of its own to give.
    return raw_setmetatable(t, real[meta] or meta)
end

-- Functions in Rust raise userdata, which becomes a text or a table where it is caught.
local unwrap_error = native.unwrap
local function clean(problem)
    if type(problem) == "userdata" then
        return unwrap_error(problem)
    end
    return problem
end

-- An error table comes out of pcall as its text, as scripts of the times before error tables expect.
local function finish_pcall(ok, ...)
    if ok then
        return true, ...
    end
    local problem = clean((...))
    if type(problem) == "table" then
        local text = problem.err
        if type(text) == "string" or type(text) == "number" then
            return false, text
        end
    end
    return false, problem
end

function G.pcall(...)
    if select("#", ...) == 0 then wrong(1, "pcall", "value", nil, 0) end
    return finish_pcall(raw_pcall(...))
end

function G.xpcall(...)
    local f, handler = ...
    if select("#", ...) < 2 then wrong(2, "xpcall", "value", nil, 1) end
    return raw_xpcall(f, function(problem) return handler(clean(problem)) end)
end

-- More results than the C stack has room for; the sum is done in doubles, which can't wrap.
function G.unpack(...)
    local t, first, last = ...
    if type(t) ~= "table" then wrong(1, "unpack", "table", t, select("#", ...)) end
    if first == nil and last == nil and #t < 8000 then
        -- Nothing but the table: as many results as the reference has room for.
        return raw_unpack(t)
    end
    local from, to = tonumber(first), tonumber(last)
    if first ~= nil and not from then wrong(2, "unpack", "number", first, 2) end
    if last ~= nil and not to then wrong(3, "unpack", "number", last, 3) end
    from, to = from or 1, to or #t
    if to - from >= 7990 or from ~= from or to ~= to or from < -2147483648 or to > 2147483647 then
        if to < from then return end
        error("too many results to unpack", 2)
    end
    return raw_unpack(t, from, to)
end

-- Text only: what looks like bytecode is a syntax error.
local function compile(text, name)
    if byte(text, 1) == 27 then
        local _, problem = raw_loadstring("\1", name)
        return nil, (gsub(problem, "char%(1%)", "char(27)"))
    end
    return raw_loadstring(text, name)
end

function G.loadstring(...)
    local text, name = ...
    if type(text) == "number" then text = tostring(text) end
    if type(text) ~= "string" then wrong(1, "loadstring", "string", text, select("#", ...)) end
    if name ~= nil and type(name) ~= "string" then
        if type(name) ~= "number" then wrong(2, "loadstring", "string", name, 2) end
        name = tostring(name)
    end
    return compile(text, name or text)
end

-- The pieces are gathered before the compiler starts: no script code runs inside it.
function G.load(...)
    local reader, name = ...
    if type(reader) ~= "function" then wrong(1, "load", "function", reader, select("#", ...)) end
    local pieces, count = {}, 0
    while true do
        local ok, piece = raw_pcall(reader)
        if not ok then return nil, clean(piece) end
        if piece == nil or piece == "" then break end
        if type(piece) ~= "string" then return nil, "reader function must return a string" end
        count = count + 1
        pieces[count] = piece
    end
    return compile(concat(pieces), name == nil and "=(load)" or tostring(name))
end

function G.collectgarbage(option, arg)
    if option == "count" or option == "step" or option == nil or option == "collect" then
        return raw_collectgarbage(option or "collect", arg)
    end
    if type(option) ~= "string" then
        error("bad argument #1 to 'collectgarbage' (string expected, got " .. type(option) .. ")", 2)
    end
    if option == "stop" or option == "restart" or option == "setpause" or option == "setstepmul" then
        -- The machine outlives the script: its collector isn't the script's to stop.
        return 0
    end
    error("bad argument #1 to 'collectgarbage' (invalid option '" .. option .. "')", 2)
end

if insecure then
    G.newproxy, G.getfenv, G.setfenv = newproxy, getfenv, setfenv
end

-- Libraries.

local function copy(t)
    local to = {}
    for key, value in raw_next, t do to[key] = value end
    return to
end

local L = { table = copy(table), string = copy(string), math = copy(math), os = { clock = os.clock } }

function L.table.insert(...)
    local t, first, second = ...
    local count = select("#", ...)
    if type(t) ~= "table" then wrong(1, "insert", "table", t, count) end
    if real[t] then error(READONLY, 0) end
    if count == 2 then
        -- nil is a value to append, as good as any other.
        return raw_insert(t, first)
    elseif count ~= 3 then
        error("wrong number of arguments to 'insert'", 2)
    end
    if not tonumber(first) then wrong(2, "insert", "number", first, 2) end
    return raw_insert(t, first, second)
end

function L.table.foreach(t, f)
    return raw_foreach(real[t] or t, f)
end

-- A pattern's items nest on the C stack: so many of them and no more. (4,000 bytes hold at most that many.)
local PATTERN = 4000
local function patterned(name, raw, fast)
    local function check(count, s, p)
        if type(s) ~= "string" and type(s) ~= "number" then
            local what = count < 1 and "no value" or type(s)
            error("bad argument #1 to '" .. name .. "' (string expected, got " .. what .. ")", 3)
        end
        if type(p) ~= "string" and type(p) ~= "number" then
            local what = count < 2 and "no value" or type(p)
            error("bad argument #2 to '" .. name .. "' (string expected, got " .. what .. ")", 3)
        end
        if type(p) == "string" and #p > PATTERN then
            local _, items = gsub(p, "[%?%*%+%-%(]", "")
            if items > PATTERN then error("pattern too complex", 3) end
        end
    end
    L.string[name] = function(...)
        local s, p = ...
        if type(s) ~= "string" or type(p) ~= "string" or #p > PATTERN then check(select("#", ...), s, p) end
        return raw(...)
    end
end
patterned("find", string.find)
patterned("match", string.match)
patterned("gmatch", string.gmatch)
patterned("gsub", string.gsub)
L.string.gfind = L.string.gmatch

-- Coroutines resume each other on the C stack.
local depth = 0
local create, raw_resume = coroutine.create, coroutine.resume
local function resumed(ok, ...)
    depth = depth - 1
    if ok then
        return true, ...
    end
    return false, clean((...))
end
local function resume(co, ...)
    if depth >= 190 then
        return false, "C stack overflow"
    end
    depth = depth + 1
    return resumed(raw_resume(co, ...))
end
local function unwrap(ok, ...)
    if ok then
        return ...
    end
    local problem = ...
    -- Strings get the position of the resumer: this function, its tail call, the resumer.
    error(problem, 3)
end
L.coroutine = {
    create = create, running = coroutine.running, status = coroutine.status, yield = coroutine.yield,
    resume = function(...)
        local co = ...
        if type(co) ~= "thread" then error("bad argument #1 to 'resume' (coroutine expected)", 2) end
        return resume(...)
    end,
    wrap = function(...)
        local f = ...
        if type(f) ~= "function" then error("bad argument #1 to 'wrap' (Lua function expected)", 2) end
        local co = create(f)
        return function(...)
            return unwrap(resume(co, ...))
        end
    end,
}

L.math.random = native.random

function L.math.randomseed(...)
    local seed = ...
    native.randomseed(tonumber(seed) or wrong(1, "randomseed", "number", seed, select("#", ...)))
end

for name, library in raw_next, native.libraries do L[name] = library end

-- The server's own table.

local function one_string(...)
    local text = ...
    if select("#", ...) ~= 1 or type(text) ~= "string" then
        return nil
    end
    return text
end

local server = {}
for key, value in raw_next, info do server[key] = value end

for name, f in raw_next, native.server do server[name] = f end

function server.error_reply(...)
    local text = one_string(...)
    if not text then return { err = "ERR wrong number or type of arguments" } end
    text = gsub(text, "^%-", "")
    -- One word is no code.
    return { err = find(text, " ", 1, true) and text or "ERR " .. text }
end

function server.status_reply(...)
    local text = one_string(...)
    if not text then return { err = "ERR wrong number or type of arguments" } end
    return { ok = text }
end

-- What a library's code sees while it is loaded.
local loading = {}
if functions then
    local at_load = { log = server.log, register_function = native.register_function }
    for key, value in raw_next, info do
        if not key:find("^REPL") then at_load[key] = value end
    end
    loading.server = readonly(at_load)
    loading.redis = loading.server
else
    function server.replicate_commands() return true end
    -- There is no debugging session to break into.
    function server.breakpoint() return false end
    function server.debug() end
end

-- Everything but what a run brings along is readonly.

for name, library in raw_next, L do G[name] = readonly(library) end
G.server = readonly(server)
G.redis = G.server
raw_getmetatable("").__index = L.string
visible_meta.string = readonly({ __index = G.string })

local missing = {
    __index = function(_, name)
        error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
    end,
}
raw_setmetatable(G, missing)
raw_setmetatable(loading, missing)
if functions then raw_setmetatable(real[loading.server], missing) end
for name in raw_next, copy(globals) do globals[name] = nil end
real[globals] = G
G._G = globals
local globals_meta = { __index = G, __newindex = function() error(READONLY, 2) end }
raw_setmetatable(globals, globals_meta)
visible_meta[globals] = readonly({ __index = function(_, name) return G[name] end })

-- Running.

-- The message handler: an error becomes a table with text and position.
local function handler(problem)
    local out = clean(problem)
    if type(out) ~= "table" then
        out = { err = "ERR " .. tostring(out) }
    elseif real[out] then
        out = {}
    end
    local source, line = native.where()
    if source then
        raw_set(out, "source", source)
        raw_set(out, "line", line)
    end
    return out
end
if not functions then
    G.__server__err__handler = handler
    G.__redis__err__handler = handler
end

local run = { handler = handler, globals = G }
local chunks = native.chunks

-- Behind a run that didn't come to its end.
function run.reset()
    depth = 0
end

function run.load(id)
    globals_meta.__index = loading
    return raw_xpcall(chunks[id], handler)
end

function run.loaded()
    globals_meta.__index = G
end

run.compile = compile
return run
