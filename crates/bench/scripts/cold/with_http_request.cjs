const [, baseUrl, chat, ca] = process.argv.slice(2)
const { request } = require(ca ? 'node:https' : 'node:http')
const options = ca ? { ca: require('node:fs').readFileSync(ca) } : {}

const call = (method, path, body, headers) =>
  new Promise((resolve, reject) => {
    const sent = { ...options, method, headers: { 'content-type': 'application/json', ...headers } }
    const sending = request(baseUrl + path, sent, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk) => (text += chunk))
      response.on('end', () => {
        const answer = JSON.parse(text)
        answer.code === 0 ? resolve(answer) : reject(new Error(answer.msg))
      })
    })
    sending.on('error', reject)
    sending.end(JSON.stringify(body))
  })

async function main() {
  const app = { app_id: 'cli_bench', app_secret: 'benchmarks0000000000000000000000' }
  const granted = await call('POST', '/open-apis/auth/v3/tenant_access_token/internal', app, {})
  const path = `/open-apis/im/v2/feed_cards/${chat}?user_id_type=open_id`
  const headers = { authorization: `Bearer ${granted.tenant_access_token}` }
  await call('PATCH', path, { time_sensitive: true, user_ids: ['ou_bench'] }, headers)
}

main()
