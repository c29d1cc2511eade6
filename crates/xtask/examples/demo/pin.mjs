// One call from Node: pin.mjs on|off. The app and the platform are in the environment.
import { Client } from '../../../../node/dist/index.mjs'

const group = 'oc_679eaeb583654bff73fefcc6e6371370'
const member = 'ou_9d2beb613c85a2412862a49a924558c5'
const outsider = 'ou_679eaeb583654bff73fefcc6e6371301'

const timeSensitive = process.argv[2] === 'on'
console.log(`await client.setTimeSensitive({ feedCardId, userIds: [member, outsider], timeSensitive: ${timeSensitive} })`)
const client = Client.fromEnv()
const outcome = await client.setTimeSensitive({ feedCardId: group, userIds: [member, outsider], timeSensitive })
const row = (name, value) => console.log(`  ${name.padEnd(20)} ${value}`)
row('ok', outcome.ok)
for (const reason of outcome.failedUserReasons) {
  row('failedUserReasons', `${reason.userId}: ${reason.errorMessage}`)
}
row('logId', outcome.logId)
