// Outcomes, errors, items and reports in the output of a real logger, and as JSON.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Client, FeedCardError, ServerError } from 'feishu-feed-card'
import { pino } from 'pino'
import { clientOf, member, outsider, pin, sandboxFor } from './stage.mjs'

/** A logger, and the list of its lines. */
function logger() {
  const lines = []
  return [pino({ name: 'app' }, { write: (line) => lines.push(line) }), lines]
}

/** The fields of a line. Fails if a key is repeated: JSON parsers keep only one of its values. */
function fieldsOf(line) {
  const keys = []
  let depth = 0
  for (const [, string, colon, bracket] of line.matchAll(/("(?:[^"\\]|\\.)*")(:?)|([{}[\]])/g)) {
    depth += bracket === undefined ? 0 : '{['.includes(bracket) ? 1 : -1
    if (colon && depth === 1) {
      keys.push(string)
    }
  }
  assert.deepEqual(keys, [...new Set(keys)], line)
  return JSON.parse(line)
}

/** All enumerable properties of an object, own and inherited, as JSON. */
function known(value) {
  const facts = {}
  for (const name in value) {
    if (value[name] !== undefined && typeof value[name] !== 'function') {
      facts[name] = value[name]
    }
  }
  return JSON.parse(JSON.stringify(facts))
}

async function refusal(t) {
  const client = clientOf(sandboxFor(t))
  return client.setTimeSensitive({ ...pin, feedCardId: 'oc_nowhere' }).catch((error) => error)
}

async function partly(t) {
  return clientOf(sandboxFor(t)).setTimeSensitive({ ...pin, userIds: [member, outsider] })
}

describe('pino loses nothing', () => {
  test('of an error under err', async (t) => {
    const [log, lines] = logger()
    const error = await refusal(t)
    log.error({ err: error }, 'not pinned')
    const { err, msg, name, level } = fieldsOf(lines[0])
    assert.deepEqual([msg, name, level], ['not pinned', 'app', 50])
    assert.equal(err.type, 'RejectedError')
    assert.ok(err.message.startsWith(error.message))
    assert.match(err.stack, /loggers\.test\.mjs/)
    for (const [fact, value] of Object.entries(known(error))) {
      assert.deepEqual(err[fact], value, fact)
    }
    assert.equal(typeof err.msg, 'string')
    assert.equal(typeof err.call, 'number')
  })

  test("of an error's JSON in the fields of the line", async (t) => {
    const [log, lines] = logger()
    const error = await refusal(t)
    log.error(error.toJSON(), 'not pinned')
    const { name, msg, level, time, ...line } = fieldsOf(lines[0])
    assert.deepEqual([name, msg, level, typeof time], ['app', 'not pinned', 50, 'number'])
    assert.equal(line.type, 'RejectedError')
    assert.equal(line.message, error.message)
    assert.equal(line.platformMsg, error.msg)
    for (const [fact, value] of Object.entries(known(error))) {
      const isEmpty = Array.isArray(value) && value.length === 0
      assert.ok(fact === 'msg' || isEmpty || JSON.stringify(line[fact]) === JSON.stringify(value), fact)
    }
  })

  test('of an outcome, also that of an error', async (t) => {
    const [log, lines] = logger()
    const outcome = await partly(t)
    log.info({ outcome }, 'pinned')
    log.info(outcome, 'pinned')
    const { outcome: nested } = fieldsOf(lines[0])
    const { level, time, pid, hostname, name, msg, ...flat } = fieldsOf(lines[1])
    assert.deepEqual([level, name, msg], [30, 'app', 'pinned'])
    assert.ok(time > 0 && pid > 0 && hostname !== '')
    assert.deepEqual(nested, known(outcome))
    assert.deepEqual(flat, known(outcome))
    assert.deepEqual(nested.failed, [outsider])
    assert.throws(
      () => outcome.throwIfFailed(),
      (error) => {
        log.error({ err: error })
        log.error({ error })
        assert.deepEqual(fieldsOf(lines[2]).err.outcome, nested)
        assert.deepEqual(fieldsOf(lines[3]).error.outcome, nested)
        return true
      },
    )
  })

  test('of items and a report', async (t) => {
    const [log, lines] = logger()
    const requests = [pin, { ...pin, feedCardId: 'oc_nowhere' }, { ...pin, userIds: [outsider] }]
    const many = clientOf(sandboxFor(t)).setTimeSensitiveMany(requests, { concurrency: 1 })
    const { value: first } = await many.next()
    const { value: second } = await many.next()
    log.info({ first, second })
    const line = fieldsOf(lines[0])
    assert.deepEqual(line.first.outcome, known(first.outcome))
    assert.equal(line.second.error.type, 'RejectedError')
    assert.deepEqual(line.second.request, requests[1])
    const report = await many.report()
    log.info({ report })
    assert.deepEqual(fieldsOf(lines[1]).report, report.toJSON())
    assert.equal(report.toJSON().taken, report.taken)
  })
})

test('toJSON returns plain data, and is not enumerable', async (t) => {
  const many = clientOf(sandboxFor(t)).setTimeSensitiveMany([pin, { ...pin, userIds: ['wrong'] }])
  const items = []
  for await (const item of many) {
    items.push(item)
  }
  for (const value of [...items, items[0].outcome ?? items[1].outcome, await many.report()]) {
    const json = value.toJSON()
    assert.deepEqual(json, JSON.parse(JSON.stringify(value)))
    assert.deepEqual(structuredClone(json), json)
    assert.ok(!Object.keys(value).includes('toJSON'))
  }
})

test("an error's JSON has the messages of its causes", async (t) => {
  const { baseUrl } = sandboxFor(t)
  const inner = new Error('the vault is sealed', { cause: 'no key' })
  const endless = new Error('round')
  endless.cause = endless
  for (const [thrown, expected] of [
    [inner, ['the vault is sealed', 'no key']],
    ['no vault', ['no vault']],
    [endless, Array(10).fill('round')],
    [{}, undefined],
  ]) {
    const client = new Client({ baseUrl, maxRetries: 0, tokenProvider: () => Promise.reject(thrown) })
    const error = await client.setTimeSensitive(pin).catch((caught) => caught)
    assert.ok(error instanceof FeedCardError)
    assert.deepEqual(error.toJSON().causes, expected)
  }
  assert.deepEqual(new ServerError('base').toJSON(), {
    type: 'ServerError',
    message: 'base',
    code: 'SERVER',
    retryable: false,
    attempts: 0,
  })
})
