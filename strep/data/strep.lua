-- A Wireshark dissector for STREP: the 24 bytes between UDP and RTP in forked call media.
-- It is found by its content, on any port. Every leg and direction of a call is a stream of its own, also where all of
-- them share addresses, ports and SSRCs: RTP and RTCP inside are shown with addresses made up by the rule of
-- "strep unwrap". The preference strep.addresses turns that off.

local HEADER = 24
local RTP_HEADER = 12
local MOST_LEGS = 8388607
local MOST_PORTS = 8192

local strep = Proto("strep", "STREP Forked Call Media")

local legs = { [0] = "A", [1] = "B" }
local directions = { [0] = "inbound", [1] = "outbound" }

local magic = ProtoField.uint8("strep.magic", "Magic", base.HEX, nil, 0xC0)
local version = ProtoField.uint8("strep.version", "Version", base.DEC, nil, 0x3C)
local leg = ProtoField.uint8("strep.leg", "Leg", base.DEC, legs, 0x02)
local direction = ProtoField.uint8("strep.direction", "Direction", base.DEC, directions, 0x01)
local header_length = ProtoField.uint8("strep.header_length", "Header length")
local reserved = ProtoField.bytes("strep.reserved", "Reserved")
local call_leg_id = ProtoField.guid("strep.call_leg_id", "Call leg")
strep.fields = { magic, version, leg, direction, header_length, reserved, call_leg_id }

strep.prefs.addresses = Pref.bool("Addresses for each leg", true,
  "Show RTP and RTCP inside STREP with addresses and ports of their leg and direction, so that they are streams apart")

local rtp = Dissector.get("rtp")
local rtcp = Dissector.get("rtcp")
local data = Dissector.get("data")

local number_of = {}
local count = 0

function strep.init()
  number_of = {}
  count = 0
end

-- The n-th leg in the file, from 1 on.
local function leg_number(key)
  local number = number_of[key]
  if not number then
    count = count + 1
    number = count
    number_of[key] = number
  end
  return number
end

local function address(base, number)
  local n = (number - 1) % MOST_LEGS + 1
  return Address.ip(string.format("10.%d.%d.%d", base + math.floor(n / 65536), math.floor(n / 256) % 256, n % 256))
end

local function is_strep(tvb)
  if tvb:len() < HEADER + 2 then return false end
  local first = tvb(0, 1):uint()
  if first < 0xC4 or first > 0xC7 or tvb(1, 1):uint() ~= HEADER then return false end
  local inside = tvb(HEADER, 1):uint()
  return inside >= 0x80 and inside <= 0xBF
end

function strep.dissector(tvb, pinfo, tree)
  if not is_strep(tvb) then return 0 end
  local first = tvb(0, 1):uint()
  local is_leg, is_direction = math.floor(first / 2) % 2, first % 2
  local item = tree:add(strep, tvb(0, HEADER))
  item:append_text(string.format(", Leg %s, %s", legs[is_leg], directions[is_direction]))
  item:add(magic, tvb(0, 1))
  item:add(version, tvb(0, 1))
  item:add(leg, tvb(0, 1))
  item:add(direction, tvb(0, 1))
  item:add(header_length, tvb(1, 1))
  item:add(reserved, tvb(2, 6))
  item:add(call_leg_id, tvb(8, 16))
  pinfo.cols.protocol = "STREP"

  local kind = tvb(HEADER + 1, 1):uint()
  local is_rtcp = kind >= 192 and kind <= 223
  local number = leg_number(tvb(8, 16):bytes():tohex() .. is_leg)
  if strep.prefs.addresses then
    local k = 2 * ((number - 1) % MOST_PORTS) + (is_rtcp and 1 or 0)
    local party, platform = address(0, number), address(128, number)
    if is_direction == 0 then
      pinfo.src, pinfo.src_port, pinfo.dst, pinfo.dst_port = party, 16384 + k, platform, 32768 + k
    else
      pinfo.src, pinfo.src_port, pinfo.dst, pinfo.dst_port = platform, 32768 + k, party, 16384 + k
    end
  end
  local rest = tvb(HEADER):tvb()
  local inside = is_rtcp and rtcp or tvb:len() >= HEADER + RTP_HEADER and rtp or data
  pcall(inside.call, inside, rest, pinfo, tree)  -- what is malformed inside is shown as theirs
  return tvb:len()
end

strep:register_heuristic("udp", function(tvb, pinfo, tree)
  if not is_strep(tvb) then return false end
  strep.dissector(tvb, pinfo, tree)
  return true
end)

DissectorTable.get("udp.port"):add_for_decode_as(strep)
