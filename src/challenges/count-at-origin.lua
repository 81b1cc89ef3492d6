-- Counts a verification in the challenge's own bucket, if it comes from the client address that opened the challenge.
-- KEYS challenge; in {pseudonym}
-- ARGV keyed hash of the client address, attempts that every challenge has
-- Returns 1 if it was counted; 0 if it comes from another address, the bucket is full, or there is no such challenge.
-- One script, because two verifications at once must not both take the last place.
-- A full bucket refuses nothing: the verification then counts against the limit of its address.
local origin, own = unpack(redis.call('HMGET', KEYS[1], 'origin', 'own'))
if origin ~= ARGV[1] or tonumber(own or 0) >= tonumber(ARGV[2]) then return 0 end
redis.call('HINCRBY', KEYS[1], 'own', 1)
return 1
