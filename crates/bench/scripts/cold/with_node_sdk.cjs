const [folder, baseUrl, chat] = process.argv.slice(2)
const lark = require(`${folder}/node_modules/@larksuiteoapi/node-sdk`)

const client = new lark.Client({
  appId: 'cli_bench',
  appSecret: 'benchmarks0000000000000000000000',
  domain: baseUrl,
  loggerLevel: lark.LoggerLevel.fatal,
})
client.im.v2.feedCard
  .patch({
    path: { feed_card_id: chat },
    params: { user_id_type: 'open_id' },
    data: { time_sensitive: true, user_ids: ['ou_bench'] },
  })
  .then((answer) => {
    if (answer.code !== 0) throw new Error(answer.msg)
  })
