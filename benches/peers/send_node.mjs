// Node's own http with a keep-alive agent, and no record at all.
import { createReadStream } from 'node:fs';
import http from 'node:http';
import { createInterface } from 'node:readline';

const [people, url, connections] = [process.argv[2], new URL(process.argv[3]), Number(process.argv[4])];
const agent = new http.Agent({ keepAlive: true, maxSockets: connections });

function post(id, mobile, name, city) {
  const boundary = '----sendform';
  const fields = [
    ['to', '+91' + mobile], ['type', 'mediatemplate'], ['template_name', 'diwali_gold'], ['channel', 'whatsapp'],
    ['from', '+919900112233'], ['coupon_code', `"GOLD${id}"`],
    ['limited_time_offer', '[{"type":"limited_time_offer","limited_time_offer":{"expiration_time_ms":4102444799000}}]'],
    ['media_url', 'https://cdn.example.com/offer.png'], ['params', `"${name}","${city}"`], ['lang_code', 'en'], ['ref', id],
  ];
  const body = Buffer.from(fields.map(([key, value]) =>
    `--${boundary}\r\nContent-Disposition: form-data; name="${key}"\r\n\r\n${value}\r\n`).join('') + `--${boundary}--\r\n`);
  return new Promise((resolve, reject) => {
    const request = http.request(url, {
      method: 'POST', agent,
      headers: { 'content-type': `multipart/form-data; boundary=${boundary}`, 'content-length': body.length, 'api-key': 'k' },
    }, (response) => {
      let text = '';
      response.on('data', (chunk) => { text += chunk; });
      response.on('end', () => { JSON.parse(text).data[0].message_id; resolve(); });
    });
    request.on('error', reject);
    request.end(body);
  });
}

const lines = createInterface({ input: createReadStream(people) })[Symbol.asyncIterator]();
await lines.next();
async function worker() {
  for (;;) {
    const { value, done } = await lines.next();
    if (done) return;
    const [id, mobile, name, city] = value.split(',');
    await post(id, mobile, name, city);
  }
}
await Promise.all(Array.from({ length: connections }, worker));
agent.destroy();
