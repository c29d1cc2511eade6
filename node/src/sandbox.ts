import type { NativeSandbox, Refusal } from './binding.js'
import { native } from './load.js'

/** An app; what is left out has its likeliest value. */
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
  /** How many calls the month still allows. */
  monthly_quota?: number | null
}

/** A person, under all three kinds of id. */
export interface User {
  open_id: string
  union_id?: string | null
  user_id?: string | null
}

/** A group chat. */
export interface Chat {
  feed_card_id: string
  /** Open ids. */
  members?: string[]
  bot_in_chat?: boolean
  dissolved?: boolean
}

/** How the platform behaves where its documentation leaves it open; there are more, see `switches()`. */
export interface Switches {
  /** Calls in a second; `null` for no limit. */
  per_second?: number | null
  /** Calls in a minute; `null` for no limit. */
  per_minute?: number | null
  [name: string]: unknown
}

/** What a sandbox holds when it starts. */
export interface World {
  apps?: App[]
  users?: User[]
  chats?: Chat[]
  switches?: Switches
  seed?: number | null
}

/** One step of the fault script: taken by the next `times` requests that are `on` its kind. */
export interface Fault {
  on?: 'any' | 'call' | 'token'
  /** 1 unless said; 0 for all. */
  times?: number
  delay_before_ms?: number
  delay_after_ms?: number
  /** The request takes effect also when the client has gone. */
  detached?: boolean
  /** The connection is reset, and yet the request arrives this much later. */
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

/** One request as the sandbox saw it. */
export interface Record {
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

/** Where a sandbox listens, on the loopback interface, and what it holds. */
export interface SandboxOptions {
  /** Held instead of {@link Sandbox.exampleWorld}. */
  world?: World
  /** A free one unless said. */
  port?: number
  /** Speaks https too, with a certificate made at the start: see `caPem`. */
  https?: boolean
  /** A free one unless said. */
  httpsPort?: number
}

/**
 * A stand-in for the platform in this process: a small, strict model with apps, tokens, chats and frequency
 * limits, not canned answers. What it holds and tells is data under the platform's own names.
 *
 * @example
 * ```ts
 * using sandbox = Sandbox.start()
 * const client = new Client({ appId: 'cli_example', appSecret: 'example-secret', baseUrl: sandbox.baseUrl })
 * await client.setTimeSensitive({ feedCardId: 'oc_679eaeb583654bff73fefcc6e6371370', userIds, timeSensitive: true })
 * sandbox.pinnedUsers('oc_679eaeb583654bff73fefcc6e6371370') // who has the chat pinned now
 * ```
 */
export class Sandbox {
  readonly #native: NativeSandbox

  private constructor(started: NativeSandbox) {
    this.#native = started
  }

  /** It listens when this returns. */
  static start(options: SandboxOptions = {}): Sandbox {
    const { world = Sandbox.exampleWorld(), port = 0, https = false, httpsPort = 0 } = options
    return new Sandbox(granted(native.startSandbox(JSON.stringify(world), port, https, httpsPort)))
  }

  /** The platform page's own example: two apps, a group, a member, an outsider. */
  static exampleWorld(): Required<World> {
    return JSON.parse(native.exampleWorld()) as Required<World>
  }

  /** `http://127.0.0.1:…` */
  get baseUrl(): string {
    return this.#native.baseUrl
  }

  /** Where `https` was asked for. */
  get httpsBaseUrl(): string | undefined {
    return this.#native.httpsBaseUrl ?? undefined
  }

  /** The authority that a client must trust for https. */
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

  /** The requests received, oldest first. */
  requests(): Record[] {
    return this.#ask('requests')
  }

  requestCount(): number {
    return this.#ask('request_count')
  }

  tokenFetches(): number {
    return this.#ask('token_fetches')
  }

  /** The largest number of arrivals of one call in any window of this length. */
  maxInWindow(call: 'group' | 'bot', ms: number): number {
    return this.#ask('max_in_window', { interface: call, ms })
  }

  /** Forgets the requests; the platform's state stays. */
  clearRecord(): void {
    this.#ask('clear_record')
  }

  /** Moves the platform's clock forward: tokens grow old, frequency windows empty. */
  advance(ms: number): void {
    this.#ask('advance', { ms })
  }

  revokeTokens(): void {
    this.#ask('revoke_tokens')
  }

  appTicket(appId: string): string | null {
    return this.#ask('app_ticket', { app_id: appId })
  }

  /** Pushes a new ticket to this store app, and makes the one before worthless. */
  rotateAppTicket(appId: string): string | null {
    return this.#ask('rotate_app_ticket', { app_id: appId })
  }

  /** Adds steps to the end of the fault script. */
  faults(...faults: Fault[]): void {
    this.#ask('faults', { faults })
  }

  clearFaults(): void {
    this.#ask('clear_faults')
  }

  faultsLeft(): number {
    return this.#ask('faults_left')
  }

  switches(): Required<Switches> {
    return this.#ask('switches')
  }

  /** Replaces all switches; what is left out goes back to its default. */
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

  /** Carries out a control given as data, `{ do: 'advance', ms: 7200000 }`. */
  control(control: { readonly do: string; readonly [field: string]: unknown }): unknown {
    return JSON.parse(granted(this.#native.control(JSON.stringify(control))))
  }

  close(): void {
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #ask<Answer>(control: string, fields: object = {}): Answer {
    return this.control({ do: control, ...fields }) as Answer
  }
}

function granted<Value extends object | string>(value: Value | Refusal): Value {
  if (typeof value === 'object' && 'refusal' in value) {
    throw new Error(`sandbox: ${value.refusal}`)
  }
  return value as Value
}
