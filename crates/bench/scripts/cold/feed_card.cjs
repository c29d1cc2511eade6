const [folder, baseUrl, feedCardId, caCerts] = process.argv.slice(2)
const { Client } = require(`${folder}/node_modules/feishu-feed-card`)

const client = new Client({ appId: 'cli_bench', appSecret: 'benchmarks0000000000000000000000', baseUrl, caCerts })
client
  .setTimeSensitive({ feedCardId, userIds: ['ou_bench'], timeSensitive: true })
  .then((outcome) => outcome.throwIfFailed())
