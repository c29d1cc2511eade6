// The driver in Node.js. The first line of input has the client's options, each further line a round of calls. A line
// of results is printed for each round.
import { createInterface } from 'node:readline'
import { Client, DeadlineExceededError, FeedCardError } from '../../../node/dist/index.mjs'

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const options = JSON.parse((await lines.next()).value)
const client = new Client({
  appId: options.app_id,
  appSecret: options.app_secret,
  baseUrl: options.base_url,
  allowHttp: options.allow_http,
  rateLimit: { perSecond: options.per_second, perMinute: options.per_minute },
  lateArrivalMs: options.late_arrival_ms,
  timeoutMs: options.timeout_ms,
  maxUsersPerRequest: options.max_users_per_request,
})

for await (const line of lines) {
  const answers = await Promise.all(JSON.parse(line).map(lane))
  // Before the results are printed, because then the process's memory is measured.
  globalThis.gc()
  process.stdout.write(`${JSON.stringify(answers)}\n`)
}
await client.close()

async function lane(groups) {
  const answers = []
  for (const group of groups) {
    answers.push(group.many ? await many(group) : await Promise.all(group.calls.map(call)))
  }
  return answers
}

async function call({ chat, users, state, timeout_ms, cancel_ms }) {
  const began = performance.now()
  const asked = { userIds: users, timeSensitive: state, ...(timeout_ms !== null && { timeoutMs: timeout_ms }) }
  let timer
  if (cancel_ms !== null) {
    const controller = new AbortController()
    asked.signal = controller.signal
    timer = setTimeout(() => controller.abort(), cancel_ms)
  }
  try {
    const outcome = await (chat === null
      ? client.setBotTimeSensitive(asked)
      : client.setTimeSensitive({ feedCardId: chat, ...asked }))
    return took(answer(outcome), began)
  } catch (error) {
    return took(thrown(error), began)
  } finally {
    clearTimeout(timer)
  }
}

async function many({ calls, many: { leave_after } }) {
  const began = performance.now()
  const answers = calls.map(() => null)
  const requests = calls.map(({ chat, users, state, timeout_ms }) => ({
    feedCardId: chat,
    userIds: users,
    timeSensitive: state,
    ...(timeout_ms !== null && { timeoutMs: timeout_ms }),
  }))
  const ofItem = ({ index, outcome, error }) => {
    answers[index] = error ? thrown(error) : answer(outcome)
  }
  try {
    const handle = client.setTimeSensitiveMany(requests, { totalTimeoutMs: options.many_timeout_ms })
    let read = 0
    try {
      for await (const item of handle) {
        ofItem(item)
        read += 1
        if (read === leave_after) break
      }
    } catch (error) {
      // Not all requests were read in time. The report has the results.
      if (!(error instanceof DeadlineExceededError)) throw error
    }
    const report = await handle.report()
    report.unread.forEach(ofItem)
    for (const left of report.unfinished) {
      answers[left.index] = answer(left, 'STOPPED')
    }
    for (let index = report.taken; index < calls.length; index += 1) {
      answers[index] = { not_attempted: [...new Set(calls[index].users)], kind: 'STOPPED' }
    }
  } catch (error) {
    // If the loop throws, its calls have no other result.
    calls.forEach((_, index) => (answers[index] ??= { foreign: String(error) }))
  }
  return answers.map((said) => said && took(said, began))
}

function answer({ reached, failed, unknown, notAttempted }, kind = null) {
  return { reached, failed, unknown, not_attempted: notAttempted, kind }
}

function thrown(error) {
  if (error instanceof FeedCardError) return answer(error, error.code)
  return error?.name === 'AbortError' ? { cancelled: true } : { foreign: String(error) }
}

function took(said, began) {
  return { ...said, took_ms: Math.round(performance.now() - began) }
}
