// What the tests of `setTimeSensitiveMany` share.

import assert from 'node:assert/strict'
import { pin } from './stage.mjs'

export const fast = { rateLimit: false, lateArrivalMs: 1 }
export const slow = { on: 'call', times: 0, delay_before_ms: 60_000 }

/** Equal calls, each a new object. */
export const pins = (count) => Array.from({ length: count }, () => ({ ...pin }))

export async function all(many) {
  const items = []
  for await (const item of many) {
    items.push(item)
  }
  return items
}

/** All items, and the error after the last item if the total timeout passed before all requests were read. */
export async function allUntilCut(many) {
  const items = []
  try {
    for await (const item of many) {
      items.push(item)
    }
  } catch (error) {
    return [items, error]
  }
  throw new Error('no error followed')
}

/** Blocks the thread, as a source that computes or reads a file does. */
export function block(ms) {
  const end = performance.now() + ms
  while (performance.now() < end);
}

export const byIndex = (items) => items.toSorted((one, other) => one.index - other.index)

/** A generator that counts how many values were taken from it, and how often it was closed. */
export function counted(count) {
  const seen = { read: 0, closed: 0 }
  function* generate() {
    try {
      for (let index = 0; index < count; index += 1) {
        seen.read += 1
        yield { ...pin }
      }
    } finally {
      seen.closed += 1
    }
  }
  return [generate(), seen]
}

export function isExact(report) {
  assert.equal(report.taken, report.succeeded + report.failed + report.unfinished.length)
  const indices = [...report.unread, ...report.unfinished].map(({ index }) => index)
  assert.equal(new Set(indices).size, indices.length)
  for (const { index, request, reached, failed, unknown, notAttempted } of report.unfinished) {
    assert.ok(index < report.taken)
    assert.deepEqual([...reached, ...failed, ...unknown, ...notAttempted], request.userIds)
  }
}
