// The conformance cases in tests/, on which all languages must agree.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { readBroken, readCases } from './conformance/case.mjs'
import { play } from './conformance/play.mjs'

// A case takes 100 ms. This limit ends a case that hangs.
const timeout = 20_000

const names = new Set()
for (const { theme, cases } of readCases()) {
  describe(theme, { concurrency: 8 }, () => {
    for (const given of cases) {
      assert.ok(!names.has(given.name), `two cases have the name ${given.name}`)
      names.add(given.name)
      test(given.name, { timeout }, () => play(given))
    }
  })
}

test('cases are found', () => assert.ok(names.size >= 30, `${names.size} cases`))

describe('broken cases fail', () => {
  const broken = readBroken()
  assert.ok(broken.length >= 5)
  for (const { case: given, must_mention: text } of broken) {
    test(given.name, { timeout }, async () => {
      await assert.rejects(play(given), ({ message }) => {
        assert.ok(message.includes(given.name), `the message lacks the name of the case: ${message}`)
        assert.ok(message.includes(text), `the message lacks ${JSON.stringify(text)}: ${message}`)
        return true
      })
    })
  }
})
