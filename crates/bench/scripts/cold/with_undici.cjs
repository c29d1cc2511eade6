const [folder, baseUrl, chat, ca] = process.argv.slice(2)
const undici = require(`${folder}/node_modules/undici`)

const dispatcher = new undici.Agent(ca ? { connect: { ca: require('node:fs').readFileSync(ca) } } : {})

async function call(method, path, body, headers) {
  const { body: answer } = await undici.request(baseUrl + path, {
    method,
    dispatcher,
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json', ...headers },
  })
  const said = await answer.json()
  if (said.code !== 0) throw new Error(said.msg)
  return said
}

async function main() {
  const app = { app_id: 'cli_bench', app_secret: 'benchmarks0000000000000000000000' }
  const granted = await call('POST', '/open-apis/auth/v3/tenant_access_token/internal', app, {})
  const path = `/open-apis/im/v2/feed_cards/${chat}?user_id_type=open_id`
  const headers = { authorization: `Bearer ${granted.tenant_access_token}` }
  await call('PATCH', path, { time_sensitive: true, user_ids: ['ou_bench'] }, headers)
  await dispatcher.close()
}

main()
