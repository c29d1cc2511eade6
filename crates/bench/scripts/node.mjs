// The callers in Node: node.mjs CALLER BASE_URL FOLDER, where the caller's package is installed in FOLDER.
// For each line of input, `IN_FLIGHT SECONDS TAG`, makes calls and prints their number and time. Each call is for
// another chat, and its response is read.
import http from 'node:http'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

// One package prints a greeting to standard output, which is for figures.
console.log = console.info = console.error

const [caller, baseUrl, folder] = process.argv.slice(2)
const require = createRequire(`${folder}/`)
const user = 'ou_bench'
const body = () => JSON.stringify({ time_sensitive: true, user_ids: [user] })
const headers = {
  authorization: 'Bearer t-benchmarks00000000000000000000000000000',
  'content-type': 'application/json; charset=utf-8',
}
const url = (chat) => `${baseUrl}/open-apis/im/v2/feed_cards/${chat}?user_id_type=open_id`

const check = (ok) => {
  if (!ok) throw new Error('not a success')
}

const callers = {
  'feishu-feed-card'() {
    const { Client } = require('feishu-feed-card')
    const client = new Client({
      appId: 'cli_bench',
      appSecret: 'benchmarks0000000000000000000000',
      baseUrl,
      rateLimit: { perSecond: 1_000_000, perMinute: 60_000_000 },
    })
    const call = async (feedCardId) =>
      check((await client.setTimeSensitive({ feedCardId, userIds: [user], timeSensitive: true })).ok)
    return Object.assign(call, { client })
  },
  fetch() {
    return async (chat) => {
      const answer = await fetch(url(chat), { method: 'PATCH', headers, body: body() })
      check((await answer.json()).code === 0)
    }
  },
  'http.request'() {
    const agent = new http.Agent({ keepAlive: true })
    return (chat) =>
      new Promise((resolve, reject) => {
        const request = http.request(url(chat), { method: 'PATCH', headers, agent }, (answer) => {
          let text = ''
          answer.setEncoding('utf8')
          answer.on('data', (chunk) => (text += chunk))
          answer.on('end', () => {
            check(JSON.parse(text).code === 0)
            resolve()
          })
        })
        request.on('error', reject)
        request.end(body())
      })
  },
  undici() {
    const undici = require('undici')
    return async (chat) => {
      const answer = await undici.request(url(chat), { method: 'PATCH', headers, body: body() })
      check((await answer.body.json()).code === 0)
    }
  },
  '@larksuiteoapi/node-sdk'() {
    const lark = require('@larksuiteoapi/node-sdk')
    const client = new lark.Client({
      appId: 'cli_bench',
      appSecret: 'benchmarks0000000000000000000000',
      domain: baseUrl,
      loggerLevel: lark.LoggerLevel.fatal,
    })
    return async (chat) => {
      const answer = await client.im.v2.feedCard.patch({
        path: { feed_card_id: chat },
        params: { user_id_type: 'open_id' },
        data: { time_sensitive: true, user_ids: [user] },
      })
      check(answer.code === 0)
    }
  },
}

const call = callers[caller]()

async function run(inFlight, end, tag) {
  let calls = 0
  if (inFlight === 'many') {
    for await (const item of call.client.setTimeSensitiveMany(pins(end, tag))) {
      check(item.outcome.ok)
      calls += 1
    }
    return calls
  }
  const work = async (task) => {
    for (let number = 0; performance.now() < end; number += 1) {
      await call(`oc_${tag}_${task}_${number}`)
      calls += 1
    }
  }
  await Promise.all(Array.from({ length: Number(inFlight) }, (_, task) => work(task)))
  return calls
}

function* pins(end, tag) {
  for (let number = 0; performance.now() < end; number += 1) {
    yield { feedCardId: `oc_${tag}_${number}`, userIds: [user], timeSensitive: true }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const [inFlight, seconds, tag] = line.split(' ')
  const began = performance.now()
  const calls = await run(inFlight, began + Number(seconds) * 1000, tag)
  process.stdout.write(`${calls} ${(performance.now() - began) / 1000}\n`)
}
process.exit(0)
