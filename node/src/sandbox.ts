import type { NativeSandbox, Refusal } from './binding.js'
import { native } from './load.js'

/** What is left out has its likeliest value. */
export interface App {
  app_id: string
  app_secret: string
  kind?: 'self_built' | 'store'
  tenant_key?: string
  scopes?: string[]
  /** Whether failed users are named. */
  user_id_permission?: boolean
  enabled?: boolean
  installed?: boolean
  bot_enabled?: boolean
  ip_allowed?: boolean
  /** Calls that the month still allows. */
  monthly_quota?: number | null
}

export interface User {
  open_id: string
  union_id?: string | null
  user_id?: string | null
}

export interface Chat {
  feed_card_id: string
  /** Open ids. */
  members?: string[]
  bot_in_chat?: boolean
  dissolved?: boolean
}

/** What the documentation leaves open; there are more, see `switches()`. */
export interface Switches {
  /** `null` for no limit. */
  per_second?: number | null
  per_minute?: number | null
  [name: string]: unknown
}

export interface World {
  apps?: App[]
  users?: User[]
  chats?: Chat[]
  switches?: Switches
  seed?: number | null
}

/** Taken by the next `times` requests that are `on` its kind. */
export interface Fault {
  on?: 'any' | 'call' | 'token'
  /** Default: 1; 0 for all. */
  times?: number
  delay_before_ms?: number
  delay_after_ms?: number
  /** Takes effect also when the client has gone. */
  detached?: boolean
  /** Reset or answered; the request arrives this much later. */
  late_ms?: number
  refuse?: boolean
  reset?: 'before' | 'after'
  status?: number
  headers?: { [name: string]: string }
  body?: string
  code?: number
  msg?: string
  html?: boolean
  /** The platform sees the request before it gets the script's own answer. */
  after?: boolean
  truncate?: number
  revoke_tokens?: boolean
  big_body?: number
  no_content_length?: boolean
  /** A token answer's `expire`; `null` leaves it out. */
  expire?: unknown
}

/** A request as the sandbox saw it. */
export interface RecordedRequest {
  number: number
  connection: number
  received_ms: number
  arrived_ms: number | null
  method: string
  path: string
  query: string | null
  headers: { [name: string]: string }
  /** The scheme alone, `Bearer`. */
  authorization: string | null
  /** Which token, counted from 1. */
  token: number | null
  body: unknown
  status: number | null
  code: number | null
  fault: boolean
}

export interface SandboxOptions {
  world?: World
  /** Default: a free one. */
  port?: number
  /** With a certificate made at the start: see `caPem`. */
  https?: boolean
  httpsPort?: number
}

/**
 * A stand-in for the platform in this process, on the loopback interface: a strict model with apps, tokens,
 * chats and frequency limits. What it holds and tells is data under the platform's own names.
 *
 * @example
 * ```ts
 * using sandbox = Sandbox.start()
 * const client = new Client({ appId: 'cli_example', appSecret: 'example-secret', baseUrl: sandbox.baseUrl })
 * await client.setTimeSensitive({ feedCardId, userIds, timeSensitive: true })
 * sandbox.pinnedUsers(feedCardId) // who has the chat pinned now
 * ```
 */
export class Sandbox {
  readonly #native: NativeSandbox

  private constructor(started: NativeSandbox) {
    this.#native = started
    listening.add(started)
  }

  static start(options: SandboxOptions = {}): Sandbox {
    const { world = this.exampleWorld(), port = 0, https = false, httpsPort = 0 } = options
    return new this(granted(native.startSandbox(JSON.stringify(world), port, https, httpsPort)))
  }

  /** Two apps, a group, a member, an outsider: the default. */
  static exampleWorld(): Required<World> {
    return JSON.parse(native.exampleWorld()) as Required<World>
  }

  get baseUrl(): string {
    return this.#native.baseUrl
  }

  get httpsBaseUrl(): string | undefined {
    return this.#native.httpsBaseUrl ?? undefined
  }

  /** The authority to trust for https. */
  get caPem(): string | undefined {
    return this.#native.caPem ?? undefined
  }

  /** Chat ids. */
  pinned(openId: string): string[] {
    return this.#ask('pinned', { open_id: openId })
  }

  /** Open ids. */
  pinnedUsers(feedCardId: string): string[] {
    return this.#ask('pinned_users', { feed_card_id: feedCardId })
  }

  /** App ids. */
  botPinned(openId: string): string[] {
    return this.#ask('bot_pinned', { open_id: openId })
  }

  /** Open ids. */
  botPinnedUsers(appId: string): string[] {
    return this.#ask('bot_pinned_users', { app_id: appId })
  }

  /** Oldest first. */
  requests(): RecordedRequest[] {
    return this.#ask('requests')
  }

  requestCount(): number {
    return this.#ask('request_count')
  }

  tokenFetches(): number {
    return this.#ask('token_fetches')
  }

  /** The most arrivals in any window of this length. */
  maxInWindow(call: 'group' | 'bot', ms: number): number {
    return this.#ask('max_in_window', { interface: call, ms })
  }

  /** Forgets the requests, nothing else. */
  clearRecord(): void {
    this.#ask('clear_record')
  }

  /** Moves the platform's clock forward. */
  advance(ms: number): void {
    this.#ask('advance', { ms })
  }

  revokeTokens(): void {
    this.#ask('revoke_tokens')
  }

  appTicket(appId: string): string | null {
    return this.#ask('app_ticket', { app_id: appId })
  }

  /** Makes the one before worthless. */
  rotateAppTicket(appId: string): string | null {
    return this.#ask('rotate_app_ticket', { app_id: appId })
  }

  /** Adds to the end of the script. */
  faults(...faults: Fault[]): void {
    this.#ask('faults', { faults })
  }

  clearFaults(): void {
    this.#ask('clear_faults')
  }

  faultsLeft(): number {
    return this.#ask('faults_left')
  }

  script(): Fault[] {
    return this.#ask('script')
  }

  switches(): Required<Switches> {
    return this.#ask('switches')
  }

  /** What is left out stays as it is. */
  setSwitches(switches: Switches): void {
    this.#ask('set_switches', { switches })
  }

  /** Adds it, or changes the one with this id. */
  putApp(app: App): void {
    this.#ask('put_app', { app })
  }

  putUser(user: User): void {
    this.#ask('put_user', { user })
  }

  putChat(chat: Chat): void {
    this.#ask('put_chat', { chat })
  }

  /** Closes the ports: who connects now is refused. */
  pauseListening(): void {
    this.#ask('pause_listening')
  }

  resumeListening(): void {
    this.#ask('resume_listening')
  }

  closeConnections(): void {
    this.#ask('close_connections')
  }

  /** `{ do: 'advance', ms: 7200000 }` */
  control(control: { do: string; [field: string]: unknown }): unknown {
    return JSON.parse(granted(this.#native.control(JSON.stringify(control))))
  }

  close(): void {
    this.#native.close()
    listening.delete(this.#native)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #ask<Answer>(control: string, fields: object = {}): Answer {
    return this.control({ do: control, ...fields }) as Answer
  }
}

/** Like a server of Node's own, one that listens is not collected: its URL may be all that is left of it. */
const listening = new Set<NativeSandbox>()

function granted<Value extends object | string>(value: Value | Refusal): Value {
  if (typeof value === 'object' && 'refusal' in value) {
    throw new Error(`sandbox: ${value.refusal}`)
  }
  return value as Value
}
