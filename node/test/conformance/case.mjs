// Loads cases. tests/README.md describes their keys; an unknown key is an error.

import { readFileSync, readdirSync } from 'node:fs'
import path from 'node:path'

const folder = path.join(import.meta.dirname, '../../../tests')

export const readCases = () =>
  readdirSync(path.join(folder, 'cases'))
    .filter((name) => name.endsWith('.json'))
    .toSorted()
    .map((name) => ({ theme: path.basename(name, '.json'), cases: read(path.join('cases', name)) }))

export const readBroken = () => read('broken.json')

const read = (name) => JSON.parse(readFileSync(path.join(folder, name), 'utf8'))

const RAISED = [
  'kind',
  'platform_code',
  'http_status',
  'retryable',
  'attempts',
  'station',
  'reason',
  'field',
  'message_contains',
  'hint_contains',
  'log_id',
  'users',
  'retry_after',
  'field_violations',
  'permission_violations',
]
const RETURNED = ['ok', 'failed_user_reasons', 'log_id', 'log_ids', 'requests', 'users']
const USERS = ['reached', 'failed', 'unknown', 'not_attempted']
const ARGUMENTS = {
  set_time_sensitive: ['feed_card_id', 'user_ids', 'time_sensitive', 'user_id_type', 'timeout'],
  set_bot_time_sensitive: ['user_ids', 'time_sensitive', 'user_id_type', 'timeout'],
  set_app_ticket: ['app_ticket'],
  close: ['timeout'],
}
const RECORD = [
  'number',
  'connection',
  'received_ms',
  'arrived_ms',
  'method',
  'path',
  'query',
  'headers',
  'authorization',
  'token',
  'body',
  'status',
  'code',
  'fault',
]

const MANY = ['requests', 'concurrency', 'total_timeout', 'take', 'collect', 'items', 'raises', 'report']

const REPORT = ['taken', 'succeeded', 'failed', 'not_read', 'failures', 'unread', 'unfinished', 'text']

/** Throws if the case is not valid. */
export function checkCase(given) {
  only('the case', given, ['name', 'source', 'world', 'client', 'https', 'faults', 'steps', 'seen'])
  only('world', given.world ?? {}, ['apps', 'users', 'chats', 'switches', 'seed'])
  if (!Array.isArray(given.steps) || given.steps.length === 0) {
    throw new Error('steps: expected a list with at least one step')
  }
  for (const [index, step] of given.steps.entries()) {
    checkStep(`step ${index}`, step, given.steps.length)
  }
  const seen = given.seen ?? {}
  only('seen', seen, ['requests', 'calls', 'token_fetches', 'refused_tokens', 'pinned', 'bot_pinned'])
  for (const request of seen.requests ?? []) {
    if (request !== '*') {
      only('seen.requests', request, RECORD)
    }
  }
}

function checkStep(place, step, steps) {
  if ('call' in step) {
    checkCall(place, step)
    return
  }
  only(place, step, ['control', 'together', 'many', 'new_client'])
  if (Object.keys(step).length !== 1) {
    throw new Error(`${place}: expected one kind of step: ${JSON.stringify(step)}`)
  }
  for (const call of step.together ?? []) {
    checkCall(place, call)
  }
  if (step.many) {
    checkMany(place, step.many)
  }
  if (step.new_client) {
    only(place, step.new_client, ['raises'])
    checkRaises(place, step.new_client.raises)
    if (steps !== 1) {
      throw new Error(`${place}: new_client must be the only step`)
    }
  }
}

function checkMany(place, many) {
  only(place, many, MANY)
  for (const request of many.requests) {
    only(place, request, [...ARGUMENTS.set_time_sensitive, 'tag'])
  }
  checkRaises(place, many.raises ?? {})
  for (const item of many.items) {
    only(place, item, ['index', 'tag', 'returns', 'raises'])
    if (!Number.isInteger(item.index)) {
      throw new Error(`${place}: an item must have an index`)
    }
    checkEnd(place, item)
  }
  only(place, many.report ?? {}, REPORT)
}

function checkCall(place, step) {
  only(place, step, ['call', 'args', 'returns', 'raises'])
  const names = ARGUMENTS[step.call]
  if (names === undefined) {
    throw new Error(`${place}: unknown call ${step.call}`)
  }
  only(place, step.args, names)
  checkEnd(place, step)
}

function checkEnd(place, step) {
  if ('returns' in step === 'raises' in step) {
    throw new Error(`${place}: a step must have either returns or raises`)
  }
  if ('raises' in step) {
    checkRaises(place, step.raises)
  } else if (step.returns !== null) {
    only(place, step.returns, RETURNED)
    only(place, step.returns.users ?? {}, USERS)
  }
}

function checkRaises(place, raises) {
  only(place, raises, RAISED)
  only(place, raises.users ?? {}, USERS)
}

function only(place, object, known) {
  if (typeof object !== 'object' || object === null) {
    throw new Error(`${place}: ${JSON.stringify(object)}; expected an object`)
  }
  for (const key of Object.keys(object)) {
    if (!known.includes(key)) {
      throw new Error(`${place}: unknown key ${key}; expected one of ${known.join(', ')}`)
    }
  }
}
