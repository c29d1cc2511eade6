// Makes a client while the system refuses every new thread, and another client later.
import { execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import { clientOf, pin } from '../stage.mjs'

function skip(why) {
  process.stdout.write(`skip: ${why}`)
  process.exit()
}

try {
  // The limit does not apply to root.
  if (process.getuid?.() === 0) {
    process.setuid(65_534)
  }
  await promisify(execFile)('prlimit', ['--version'])
} catch (error) {
  skip(error.message)
}

// Another process, which may still start processes, changes the limit of this one.
const { pid } = process
const script = `
  set_limit() { prlimit --pid ${pid} --nproc=$1: && echo set; }
  hard=$(prlimit --pid ${pid} --nproc --output HARD --noheadings --raw)
  set_limit 1 && read go && set_limit "$hard"
  read go`
const limit = spawn('sh', ['-c', script], { stdio: ['pipe', 'pipe', 'ignore'] })
const said = async () => String((await once(limit.stdout, 'data'))[0]).trim()
if ((await Promise.race([said(), once(limit, 'close')])) !== 'set') {
  skip('the limit cannot be set')
}
if (spawnSync('true').error === undefined) {
  skip('the limit is not enforced')
}

let refused = {}
try {
  clientOf({ baseUrl: process.argv[2] })
} catch (error) {
  refused = error
}
limit.stdin.write('go\n')
await said()
const { ok } = await clientOf({ baseUrl: process.argv[2] }).setTimeSensitive(pin)
const { code, retryable, hint } = refused
const isHinted = hint?.includes('limits on file descriptors and threads')
process.stdout.write(JSON.stringify({ code, retryable, isHinted, ok }))
limit.kill()
