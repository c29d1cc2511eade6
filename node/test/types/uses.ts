// Typical uses, which must have no type error. They are not run.

import {
  type CallOptions,
  Client,
  type ClientEvent,
  type ClientOptions,
  type ConnectionReason,
  type ErrorCode,
  type FailedUserReason,
  FeedCardError,
  InvalidInputError,
  type Many,
  type ManyItem,
  type ManyOptions,
  type ManyRequest,
  type Outcome,
  PartialFailureError,
  type Progress,
  type Quota,
  RateLimitedError,
  type Report,
  type SetTimeSensitive,
  type Station,
  type TokenProvider,
  type Unfinished,
  type UserIdType,
} from 'feishu-feed-card'
import { type Fault, type RecordedRequest, Sandbox, type World } from 'feishu-feed-card/sandbox'

declare function sleep(ms: number): Promise<void>
declare const maybe: string | undefined
declare const signal: AbortSignal | undefined

export async function pins(onCall: readonly string[]): Promise<Outcome> {
  const client = new Client({ appId: 'cli_1', appSecret: 'secret' })
  const outcome = await client.setTimeSensitive({ feedCardId: 'oc_1', userIds: onCall, timeSensitive: true })
  const { ok, failedUserReasons, logId, logIds, requests, reached, failed, unknown, notAttempted } = outcome
  const facts: [boolean, readonly FailedUserReason[], string | undefined, readonly string[], number] = [
    ok,
    failedUserReasons,
    logId,
    logIds,
    requests,
  ]
  const users: (readonly string[])[] = [reached, failed, unknown, notAttempted]
  console.log(facts, users)
  return outcome.throwIfFailed()
}

export async function everyOption(provider: TokenProvider, quota: Quota): Promise<void> {
  const options: ClientOptions = {
    appId: maybe,
    appSecret: maybe,
    tenantKey: 'tenant',
    appTicket: 'ticket',
    tenantAccessToken: maybe,
    tokenProvider: provider,
    baseUrl: 'https://open.larksuite.com',
    allowHttp: true,
    proxy: maybe === undefined ? false : 'socks5h://127.0.0.1:1080',
    caCerts: '/etc/ssl/own.pem',
    userAgent: 'my-bot/1.0',
    timeoutMs: 10_000,
    connectTimeoutMs: 1000,
    attemptTimeoutMs: 5000,
    maxRetries: 0,
    rateLimit: { perSecond: 20, perMinute: 400 },
    quota,
    lateArrivalMs: 0,
    maxUsersPerRequest: 10,
    onEvent: ({ name, level, durationMs, ...facts }: ClientEvent) =>
      console[level](name, durationMs ?? 0, facts['logId']),
  }
  await using client = new Client({ ...options, rateLimit: false })
  const call: SetTimeSensitive = {
    feedCardId: 'oc_1',
    userIds: ['ou_1'],
    timeSensitive: false,
    userIdType: 'union_id',
    signal,
    timeoutMs: undefined,
    onEvent: (event: ClientEvent) => console.log(event.name, event.call),
  }
  await client.setTimeSensitive(call)
  await client.setBotTimeSensitive({ userIds: ['ou_1'], timeSensitive: true, signal })
  client.setAppTicket('ticket')
  const shared: Quota | undefined = client.quota
  Client.fromEnv()
  Client.fromEnv({ quota: shared })
  await client.close()
  await client.close({ timeoutMs: 5000 })
}

export async function makesMany(client: Client, requests: ManyRequest[]): Promise<Report> {
  const options: ManyOptions = {
    concurrency: 10,
    progress: ({ done, total, failed, waitingForQuota, etaMs }: Progress) =>
      console.log(done + failed + waitingForQuota, total ?? '?', etaMs ?? '?'),
    totalTimeoutMs: undefined,
    signal,
    onEvent: ({ call }) => console.log(call),
  }
  for await (const { index, request, outcome, error } of client.setTimeSensitiveMany(requests, options)) {
    const chat: string = request.feedCardId
    if (error) {
      const why: ErrorCode = error.code
      console.log(index, chat, why, error.call)
    } else {
      const number: number | undefined = outcome.call
      console.log(number)
      outcome.throwIfFailed()
    }
  }
  function* generate() {
    yield { feedCardId: 'oc_1', userIds: ['ou_1'], timeSensitive: true } as const
  }
  async function* asynchronous() {
    yield* requests
  }
  await using many: Many = client.setTimeSensitiveMany(generate())
  const first: IteratorResult<ManyItem, undefined> = await many.next()
  console.log(first.value?.index)
  const report = await client.setTimeSensitiveMany(asynchronous()).report()
  const left: Unfinished | undefined = report.unfinished[0]
  console.log(report.taken, report.succeeded, report.failed, report.unread[0]?.outcome, left?.notAttempted)
  const json: object[] = [report.toJSON(), ...report.unread.map((item) => item.toJSON())]
  console.log(json, report.unread[0]?.outcome?.toJSON())
  await client.setTimeSensitiveMany(new Set(requests)).return()
  const nothing: Many = client.setTimeSensitiveMany([])
  console.log(nothing, `${report}`, report.notRead ?? 'unknown')
  return report
}

interface Row {
  readonly id: number
  readonly chat: string
}

/** Typed rows, each with its own data as the tag. */
export async function makesManyOfRows(client: Client, rows: readonly Row[]): Promise<number[]> {
  const requests = rows.map((row) => ({
    feedCardId: row.chat,
    userIds: ['ou_1'],
    timeSensitive: true,
    tag: row,
  }))
  for await (const { tag, request } of client.setTimeSensitiveMany(requests)) {
    const id: number = tag.id
    const same: Row = request.tag
    console.log(id, same)
  }
  async function* generate() {
    for (const { id, chat } of rows) {
      yield { feedCardId: chat, userIds: ['ou_1'], timeSensitive: true, tag: id }
    }
  }
  const many = client.setTimeSensitiveMany(generate(), { totalTimeoutMs: 60_000 })
  const { items, report } = await many.collect()
  const all: readonly ManyItem[] = items
  const whatever: Report = report
  console.log(all, whatever, `${report}`)
  const left: number[] = report.unfinished.map(({ tag }) => tag)
  return [...left, ...report.failures.map(({ tag }) => tag), ...report.unread.map(({ tag }) => tag)]
}

interface Incident {
  readonly id: string
}

/** Some have a tag, and some have none. */
export async function makesManyOfSome(client: Client, requests: Iterable<ManyRequest & { tag?: Incident }>) {
  const { items } = await client.setTimeSensitiveMany(requests).collect()
  return items.map((item) => item.tag?.id)
}

export const providers: TokenProvider[] = [
  ({ refusedToken }) => (refusedToken === undefined ? 't-1' : 't-2'),
  () => 't-1',
  () => ({ token: 't-1', expiresInMs: 60_000 }),
  async () => 't-1',
  async () => ({ token: 't-1' }),
]

export async function catches(client: Client, call: SetTimeSensitive): Promise<void> {
  try {
    await client.setTimeSensitive(call)
  } catch (error) {
    if (error instanceof RateLimitedError) {
      const { code }: { code: 'RATE_LIMITED' } = error
      await sleep(error.retryAfterMs ?? 1000)
      console.log(code)
    } else if (error instanceof InvalidInputError) {
      const field: string | undefined = error.field
      console.log(field)
    } else if (error instanceof PartialFailureError) {
      console.log(error.outcome?.failedUserReasons[0]?.userId)
    } else if (error instanceof FeedCardError) {
      const code: ErrorCode = error.code
      const station: Station | undefined = error.station
      const reason: ConnectionReason | undefined = error.reason
      const attempts: number = error.attempts
      console.log(code, station, reason, attempts, error.cause, error.toJSON(), error.reached.length)
    } else {
      throw error
    }
  }
}

export const exhaustive = (code: ErrorCode): boolean => {
  switch (code) {
    case 'RATE_LIMITED':
    case 'SERVER':
    case 'CONNECTION':
    case 'TIMEOUT':
      return true
    case 'INVALID_INPUT':
    case 'AUTHENTICATION':
    case 'PERMISSION_DENIED':
    case 'REJECTED':
    case 'QUOTA_EXHAUSTED':
    case 'UNEXPECTED_RESPONSE':
    case 'CLIENT_CLOSED':
    case 'PARTIAL_FAILURE':
      return false
  }
}

export function rehearses(kind: UserIdType, options: CallOptions): void {
  const world: World = { apps: [{ app_id: 'cli_1', app_secret: 's' }], switches: { per_second: null } }
  using sandbox = Sandbox.start({ world, https: true })
  const fault: Fault = { on: 'call', status: 502, html: true, times: 2 }
  sandbox.faults(fault, { reset: 'before' })
  const [first]: RecordedRequest[] = sandbox.requests()
  const headers: Record<string, string> = first?.headers ?? {}
  console.log(headers['host'])
  const chats: string[] = sandbox.pinned('ou_1')
  const url: string = sandbox.httpsBaseUrl ?? sandbox.baseUrl
  console.log(first?.path, chats, url, kind, options)
}
