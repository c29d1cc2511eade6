// Compares a million requests through `setTimeSensitiveMany` with a thousand: peak memory, and CPU time of the main
// thread per result. Each measurement runs in a new process. The sandbox runs in the parent process and answers immediately.
// The client has no rate limit.
//
//   npm run build && node bench/many.mjs [requests]
//
// The peak is the operating system's (`maxRSS`). V8's young generation grows to 48 MB under load, even if few objects
// stay alive. With `--max-semi-space-size=1`, which a program with little memory would set, the peak shows the memory in
// use. The benchmark measures with and without this flag. It also measures a loop that creates as many objects of the
// same size without any calls: its growth is V8's own.
//
// The CPU time is that of the loop's thread, in user and system mode, from the first `next` to the last. It does not
// include Node's other threads and the runtime's thread.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Client } from 'feishu-feed-card'
import { Sandbox } from 'feishu-feed-card/sandbox'

const small = '--max-semi-space-size=1'
const [, , first, ...rest] = process.argv

if (first === 'call') {
  await call(rest[0], Number(rest[1]), rest[2])
} else {
  await compare(Number(first ?? 1_000_000))
}

async function compare(most) {
  const world = Sandbox.exampleWorld()
  const unlimited = { per_second: null, per_minute: null, keep_requests: 0, keep_arrivals: 0 }
  const sandbox = Sandbox.start({ world: { ...world, switches: unlimited } })
  try {
    for (const source of ['no calls', 'generator', 'async generator']) {
      for (const flags of [[small], []]) {
        const few = await measure(source, 1000, flags, sandbox)
        const many = await measure(source, most, flags, sandbox)
        const grown = ((many.peak - few.peak) / 1024).toFixed(1)
        const numbers = `${many.cpu.toFixed(2)} µs of the main thread and ${many.wall.toFixed(1)} µs each`
        console.log(
          `${source}, ${most} requests, ${flags[0] ?? "V8's own young generation"}: ` +
            `the peak grew by ${grown} MiB over ${(few.peak / 1024).toFixed(1)} MiB; ${numbers}`,
        )
      }
    }
  } finally {
    sandbox.close()
  }
}

async function measure(source, requests, flags, { baseUrl }) {
  const file = fileURLToPath(import.meta.url)
  const child = spawn(process.execPath, [...flags, file, 'call', source, requests, baseUrl], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.on('data', (text) => (output += text))
  const [code] = await once(child, 'close')
  if (code !== 0) {
    throw new Error(`the process for ${requests} requests exited with ${code}`)
  }
  return JSON.parse(output)
}

async function call(source, requests, baseUrl) {
  const client = new Client({
    appId: 'cli_example',
    appSecret: 'example-secret',
    baseUrl,
    rateLimit: false,
  })
  const many = {
    'no calls': () => withoutCalls(pins(requests)),
    generator: () => client.setTimeSensitiveMany(pins(requests)),
    'async generator': () => client.setTimeSensitiveMany(asynchronously(pins(requests))),
  }[source]()
  const before = threadCpu()
  const began = performance.now()
  let reached = 0
  for await (const { outcome } of many) {
    reached += outcome?.ok ? 1 : 0
  }
  const cpu = (threadCpu() - before) / requests
  const wall = ((performance.now() - began) / requests) * 1000
  if (reached !== requests) {
    throw new Error(`${reached} of ${requests} requests succeeded`)
  }
  console.log(JSON.stringify({ peak: process.resourceUsage().maxRSS, cpu, wall }))
}

function* pins(count) {
  for (let index = 0; index < count; index += 1) {
    yield {
      feedCardId: 'oc_679eaeb583654bff73fefcc6e6371370',
      userIds: ['ou_9d2beb613c85a2412862a49a924558c5'],
      timeSensitive: true,
    }
  }
}

async function* asynchronously(requests) {
  yield* requests
}

/** Yields items without making calls. Keeps up to 100 requests open, and finishes 64 at a time. */
async function* withoutCalls(requests) {
  const open = []
  let made = 0
  const items = (count) =>
    open.splice(0, count).map(({ index, request }) => {
      const reached = [...request.userIds]
      return { index, request, outcome: { ok: true, logIds: [`log_${index}`], requests: 1, reached } }
    })
  for (const request of requests) {
    open.push({ index: made, request })
    made += 1
    if (open.length === 100) {
      await new Promise(setImmediate)
      yield* items(64)
    }
  }
  yield* items(100)
}

/** Returns the thread's CPU time in microseconds, from Node 23.9 or from Linux. */
function threadCpu() {
  if (process.threadCpuUsage) {
    const { user, system } = process.threadCpuUsage()
    return user + system
  }
  const [nanoseconds] = readFileSync(`/proc/${process.pid}/task/${process.pid}/schedstat`, 'utf8').split(' ')
  return Number(nanoseconds) / 1000
}
