import type { NativeSandbox, Refusal } from './binding.js'
import { native } from './load.js'

/** An app. The defaults describe a working self-built app. */
export interface App {
  app_id: string
  app_secret: string
  kind?: 'self_built' | 'store'
  tenant_key?: string
  scopes?: string[]
  /** Whether failures name their users. */
  user_id_permission?: boolean
  enabled?: boolean
  installed?: boolean
  bot_enabled?: boolean
  ip_allowed?: boolean
  /** Calls left in this month. */
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

/** The platform's behaviour where its documentation leaves it open. For all switches, see `switches()`. */
export interface Switches {
  /** `null`: no limit. */
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

/** A fault of the next `times` requests of the kind `on`. */
export interface Fault {
  on?: 'any' | 'call' | 'token'
  /** Default: 1. 0: all requests. */
  times?: number
  delay_before_ms?: number
  delay_after_ms?: number
  /** The request is processed even if the client disconnects. */
  detached?: boolean
  /** The request arrives this much later, after the connection was reset or answered. */
  late_ms?: number
  refuse?: boolean
  reset?: 'before' | 'after'
  status?: number
  headers?: { [name: string]: string }
  body?: string
  code?: number
  msg?: string
  html?: boolean
  /** The platform processes the request before the scripted answer is sent. */
  after?: boolean
  truncate?: number
  revoke_tokens?: boolean
  big_body?: number
  no_content_length?: boolean
  /** The `expire` of a token response. `null` omits it. */
  expire?: unknown
}

/** A request that the sandbox received. */
export interface RecordedRequest {
  number: number
  connection: number
  received_ms: number
  arrived_ms: number | null
  method: string
  path: string
  query: string | null
  headers: { [name: string]: string }
  /** The scheme only: `Bearer`. */
  authorization: string | null
  /** The token's number, from 1. */
  token: number | null
  body: unknown
  status: number | null
  code: number | null
  fault: boolean
}

export interface SandboxOptions {
  world?: World
  /** Default: a free port. */
  port?: number
  /** Serves https too, with a new certificate: see `caPem`. */
  https?: boolean
  httpsPort?: number
}

/**
 * A local stand-in for the platform, on a loopback port of this process: a strict model with apps, tokens, chats and
 * frequency limits. Its data has the platform's field names.
 *
 * @example
 * ```ts
 * using sandbox = Sandbox.start()
 * const client = new Client({ appId: 'cli_example', appSecret: 'example-secret', baseUrl: sandbox.baseUrl })
 * await client.setTimeSensitive({ feedCardId, userIds, timeSensitive: true })
 * sandbox.pinnedUsers(feedCardId) // the users for whom the chat is pinned
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
    return new this(valueOrThrow(native.startSandbox(JSON.stringify(world), port, https, httpsPort)))
  }

  /** The default: two apps, a group, a member, a user outside the group. */
  static exampleWorld(): Required<World> {
    return JSON.parse(native.exampleWorld()) as Required<World>
  }

  get baseUrl(): string {
    return this.#native.baseUrl
  }

  get httpsBaseUrl(): string | undefined {
    return this.#native.httpsBaseUrl ?? undefined
  }

  /** The certificate to trust for https. */
  get caPem(): string | undefined {
    return this.#native.caPem ?? undefined
  }

  /** Chat ids. */
  pinned(openId: string): string[] {
    return this.#run('pinned', { open_id: openId })
  }

  /** Open ids. */
  pinnedUsers(feedCardId: string): string[] {
    return this.#run('pinned_users', { feed_card_id: feedCardId })
  }

  /** App ids. */
  botPinned(openId: string): string[] {
    return this.#run('bot_pinned', { open_id: openId })
  }

  /** Open ids. */
  botPinnedUsers(appId: string): string[] {
    return this.#run('bot_pinned_users', { app_id: appId })
  }

  /** Oldest first. */
  requests(): RecordedRequest[] {
    return this.#run('requests')
  }

  requestCount(): number {
    return this.#run('request_count')
  }

  tokenFetches(): number {
    return this.#run('token_fetches')
  }

  /** The largest number of calls in any window of this length. */
  maxInWindow(call: 'group' | 'bot', ms: number): number {
    return this.#run('max_in_window', { interface: call, ms })
  }

  /** Deletes the recorded requests only. */
  clearRecord(): void {
    this.#run('clear_record')
  }

  /** Advances the platform's clock. */
  advance(ms: number): void {
    this.#run('advance', { ms })
  }

  revokeTokens(): void {
    this.#run('revoke_tokens')
  }

  appTicket(appId: string): string | null {
    return this.#run('app_ticket', { app_id: appId })
  }

  /** Invalidates the old ticket, and returns the new one. */
  rotateAppTicket(appId: string): string | null {
    return this.#run('rotate_app_ticket', { app_id: appId })
  }

  /** Appends to the fault script. */
  faults(...faults: Fault[]): void {
    this.#run('faults', { faults })
  }

  clearFaults(): void {
    this.#run('clear_faults')
  }

  faultsLeft(): number {
    return this.#run('faults_left')
  }

  script(): Fault[] {
    return this.#run('script')
  }

  switches(): Required<Switches> {
    return this.#run('switches')
  }

  /** The other switches keep their values. */
  setSwitches(switches: Switches): void {
    this.#run('set_switches', { switches })
  }

  /** Adds the app, or replaces the one with this id. */
  putApp(app: App): void {
    this.#run('put_app', { app })
  }

  putUser(user: User): void {
    this.#run('put_user', { user })
  }

  putChat(chat: Chat): void {
    this.#run('put_chat', { chat })
  }

  /** Closes the ports, so that new connections are refused. */
  pauseListening(): void {
    this.#run('pause_listening')
  }

  resumeListening(): void {
    this.#run('resume_listening')
  }

  closeConnections(): void {
    this.#run('close_connections')
  }

  /** `{ do: 'advance', ms: 7200000 }` */
  control(control: { do: string; [field: string]: unknown }): unknown {
    return JSON.parse(valueOrThrow(this.#native.control(JSON.stringify(control))))
  }

  close(): void {
    this.#native.close()
    listening.delete(this.#native)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #run<Result>(control: string, fields: object = {}): Result {
    return this.control({ do: control, ...fields }) as Result
  }
}

/** Open sandboxes. They are not collected, as with Node's servers, because the program may keep only the URL. */
const listening = new Set<NativeSandbox>()

function valueOrThrow<Value extends object | string>(value: Value | Refusal): Value {
  if (typeof value === 'object' && 'refusal' in value) {
    throw new Error(`sandbox: ${value.refusal}`)
  }
  return value as Value
}
