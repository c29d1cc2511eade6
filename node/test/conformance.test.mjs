// The conformance cases of tests/, which all languages share, in Node.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { readBroken, readCases } from './conformance/case.mjs'
import { play } from './conformance/play.mjs'

// A case takes a tenth of a second; this only keeps a hanging one from hanging the run.
const timeout = 20_000

const names = new Set()
for (const { theme, cases } of readCases()) {
  describe(theme, { concurrency: 8 }, () => {
    for (const given of cases) {
      assert.ok(!names.has(given.name), `the name is used twice: ${given.name}`)
      names.add(given.name)
      test(given.name, { timeout }, () => play(given))
    }
  })
}

test('there are cases', () => assert.ok(names.size >= 30, `${names.size} cases`))

describe('broken cases fail', () => {
  const broken = readBroken()
  assert.ok(broken.length >= 5)
  for (const { case: given, must_mention: text } of broken) {
    test(given.name, { timeout }, async () => {
      await assert.rejects(play(given), ({ message }) => {
        assert.ok(message.includes(given.name), `the case is not named: ${message}`)
        assert.ok(message.includes(text), `${JSON.stringify(text)} is not mentioned: ${message}`)
        return true
      })
    })
  }
})
