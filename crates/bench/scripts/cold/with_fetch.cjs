// A certificate authority of one's own is given in NODE_EXTRA_CA_CERTS.
const [, baseUrl, chat] = process.argv.slice(2)

async function call(method, path, body, headers) {
  const sent = { method, body: JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers } }
  const answer = await (await fetch(baseUrl + path, sent)).json()
  if (answer.code !== 0) throw new Error(answer.msg)
  return answer
}

async function main() {
  const app = { app_id: 'cli_bench', app_secret: 'benchmarks0000000000000000000000' }
  const granted = await call('POST', '/open-apis/auth/v3/tenant_access_token/internal', app, {})
  const path = `/open-apis/im/v2/feed_cards/${chat}?user_id_type=open_id`
  const headers = { authorization: `Bearer ${granted.tenant_access_token}` }
  await call('PATCH', path, { time_sensitive: true, user_ids: ['ou_bench'] }, headers)
}

main()
