// The calls made with the platform's own Node client: pin.mjs BASE_URL true|false FOLDER, where the client
// is installed in FOLDER. Prints what came back as JSON.
import { createRequire } from 'node:module'
import path from 'node:path'

const [baseUrl, state, folder] = process.argv.slice(2)
const lark = createRequire(path.join(folder, 'node_modules', 'x.js'))('@larksuiteoapi/node-sdk')

const group = 'oc_679eaeb583654bff73fefcc6e6371370'
const withoutBot = 'oc_without_bot'
const member = 'ou_9d2beb613c85a2412862a49a924558c5'
const outsider = 'ou_679eaeb583654bff73fefcc6e6371301'
const time_sensitive = state === 'true'
const params = { user_id_type: 'open_id' }

const client = new lark.Client({
  appId: 'cli_example',
  appSecret: 'example-secret',
  domain: baseUrl,
  loggerLevel: lark.LoggerLevel.fatal,
})
const cards = client.im.v2.feedCard

// It throws what axios throws where the HTTP status is not 2xx, and returns the platform's answer otherwise.
const said = async (call) => {
  const answer = await call.catch((error) => {
    if (error.response === undefined) {
      throw error
    }
    return error.response.data
  })
  return {
    code: answer.code,
    msg: answer.msg,
    failed: (answer.data?.failed_user_reasons ?? []).map((reason) => [
      reason.error_code,
      reason.error_message,
      reason.user_id,
    ]),
    has_log_id: answer.code === 0 || Boolean(answer.error?.log_id),
  }
}
const pin = (feed_card_id, user_ids) =>
  said(cards.patch({ path: { feed_card_id }, params, data: { time_sensitive, user_ids } }))

console.log(
  JSON.stringify({
    partial_failure: await pin(group, [member, outsider]),
    bot: await said(cards.botTimeSentive({ params, data: { time_sensitive, user_ids: [member] } })),
    bot_not_in_chat: await pin(withoutBot, [member]),
  }),
)
