import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Client, FeedCardError } from 'feishu-feed-card'
import { Sandbox } from 'feishu-feed-card/sandbox'
import { checkCase } from './case.mjs'
import { differences } from './compare.mjs'
import { errorInJson, has, inJavaScript, outcomeInJson, reportInJson } from './names.mjs'

const EXAMPLE_APP = { app_id: 'cli_example', app_secret: 'example-secret' }

/** Plays a case. Throws an error with all differences between the expected and the actual results. */
export async function play(given) {
  let sandbox
  let folder
  try {
    checkCase(given)
    sandbox = Sandbox.start({
      world: { ...Sandbox.exampleWorld(), ...given.world },
      https: given.https ?? false,
    })
    sandbox.faults(...(given.faults ?? []))
    const options = { ...EXAMPLE_APP, ...given.client }
    const baseUrl = sandbox.httpsBaseUrl ?? sandbox.baseUrl
    options.base_url = options.base_url?.replace('{base_url}', baseUrl) ?? baseUrl
    if (given.https && options.ca_certs === undefined) {
      folder = mkdtempSync(path.join(tmpdir(), 'feishu-feed-card-'))
      options.ca_certs = path.join(folder, 'ca.pem')
      writeFileSync(options.ca_certs, sandbox.caPem)
    }
    const refused = []
    if (options.token_provider !== undefined) {
      const tokens = options.token_provider
      options.token_provider = ({ refusedToken = null }) => {
        refused.push(refusedToken)
        return tokens[Math.min(refused.length, tokens.length) - 1]
      }
    }
    await steps(given.steps, () => new Client(inJavaScript(options)), sandbox)
    checkSeen(given.seen ?? {}, sandbox, options.app_id, refused)
  } catch (error) {
    throw new Error(`${given.name}\n  ${error.message}`, { cause: error })
  } finally {
    sandbox?.close()
    if (folder !== undefined) {
      rmSync(folder, { recursive: true })
    }
  }
}

async function steps(all, newClient, sandbox) {
  const [first] = all
  if (first.new_client) {
    await judge('making the client', first.new_client, newClient)
    return
  }
  let client
  try {
    client = newClient()
  } catch (error) {
    throw new Error(`no client: ${JSON.stringify(errorInJson(error))}`, { cause: error })
  }
  for (const [index, step] of all.entries()) {
    const place = `step ${index}`
    if (step.control) {
      sandbox.control(step.control)
    } else if (step.together) {
      await Promise.all(step.together.map((call) => make(client, place, call)))
    } else if (step.many) {
      await makeMany(client, place, step.many)
    } else {
      await make(client, place, step)
    }
  }
}

function make(client, place, step) {
  const given = inJavaScript(step.args)
  return judge(place, step, async () => {
    switch (step.call) {
      case 'set_time_sensitive':
        return outcomeInJson(await client.setTimeSensitive(given))
      case 'set_bot_time_sensitive':
        return outcomeInJson(await client.setBotTimeSensitive(given))
      case 'close':
        return (await client.close(given)) ?? null
      default:
        return client.setAppTicket(given.appTicket)
    }
  })
}

async function makeMany(client, place, step) {
  const { requests, take = Infinity, collect, items: expected, raises, report, ...options } = step
  const many = client.setTimeSensitiveMany(requests.map(inJavaScript), inJavaScript(options))
  const items = []
  let end = () => null
  if (collect) {
    items.push(...(await many.collect()).items)
  } else {
    try {
      for await (const item of many) {
        items.push(item)
        if (items.length === take) {
          break
        }
      }
    } catch (error) {
      end = () => Promise.reject(error)
    }
    items.sort((one, other) => one.index - other.index)
  }
  const [came, due] = [items, expected].map((some) => JSON.stringify(some.map(({ index }) => index)))
  if (came !== due) {
    throw new Error(`${place}: expected the items ${due}, ${came} came`)
  }
  for (const [at, { index, tag, outcome, error }] of items.entries()) {
    if ('tag' in expected[at]) {
      verdict(`${place}, item ${index}`, differences(expected[at].tag, tag), tag)
    }
    await judge(`${place}, item ${index}`, expected[at], () => {
      if (error) {
        throw error
      }
      return outcomeInJson(outcome)
    })
  }
  await judge(`${place}, end`, raises === undefined ? { returns: null } : { raises }, end)
  if (report !== undefined) {
    const actual = reportInJson(await many.report())
    verdict(`${place}, report`, differences(report, actual), actual)
  }
}

async function judge(place, { returns, raises }, action) {
  let came
  let wrong
  try {
    came = await action()
    wrong =
      raises === undefined ? differences(returns, came) : [`expected it to raise ${JSON.stringify(raises)}`]
  } catch (error) {
    if (!(error instanceof FeedCardError)) {
      throw error
    }
    came = { message: error.message, hint: error.hint, ...errorInJson(error) }
    wrong =
      raises === undefined ? [`expected it to return ${JSON.stringify(returns)}`] : wrongWith(error, raises)
  }
  verdict(place, wrong, came)
}

function wrongWith(error, raises) {
  const { message_contains: inMessage = [], hint_contains: inHint = [], ...expected } = raises
  return [
    ...lacks('message', error.message, inMessage),
    ...lacks('hint', error.hint ?? '', inHint),
    ...differences(expected, errorInJson(error)),
  ]
}

const lacks = (what, text, parts) =>
  parts
    .filter((part) => !has(text, part))
    .map((part) => `.${what}_contains: expected ${JSON.stringify(part)} in ${JSON.stringify(text)}`)

function checkSeen(seen, sandbox, appId, refused) {
  const records = sandbox.requests()
  const calls = records.filter(({ method }) => method === 'PATCH')
  const came = {
    requests: calls,
    calls: calls.length,
    token_fetches: sandbox.tokenFetches(),
    refused_tokens: refused,
    pinned: Object.fromEntries(Object.keys(seen.pinned ?? {}).map((id) => [id, sandbox.pinned(id)])),
    bot_pinned: seen.bot_pinned && sandbox.botPinnedUsers(appId),
  }
  verdict('seen', differences(seen, came), records)
}

function verdict(place, wrong, came) {
  if (wrong.length > 0) {
    throw new Error(
      [...wrong.map((line) => `${place}: ${line}`), `${place}: all that came: ${JSON.stringify(came)}`].join(
        '\n  ',
      ),
    )
  }
}
