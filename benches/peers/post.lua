-- What wrk posts: the same body as `sendform apply` does, each time the same.
local boundary = "----sendform"
local fields = {
  { "to", "+919876543210" }, { "type", "mediatemplate" }, { "template_name", "diwali_gold" }, { "channel", "whatsapp" },
  { "from", "+919900112233" }, { "coupon_code", '"GOLD1234567"' },
  { "limited_time_offer", '[{"type":"limited_time_offer","limited_time_offer":{"expiration_time_ms":4102444799000}}]' },
  { "media_url", "https://cdn.example.com/offer.png" }, { "params", '"Asha","Mumbai"' }, { "lang_code", "en" },
  { "ref", "5f0c0d8f6a3b4c2e9d1f00112233aabb" },
}
local body = ""
for _, field in ipairs(fields) do
  body = body .. "--" .. boundary .. '\r\nContent-Disposition: form-data; name="' .. field[1] .. '"\r\n\r\n' .. field[2] .. "\r\n"
end
wrk.method = "POST"
wrk.body = body .. "--" .. boundary .. "--\r\n"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=" .. boundary
wrk.headers["api-key"] = "k"
