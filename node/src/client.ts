import type { Arguments, ErrorData, NativeClient, Options, Quota } from './binding.js'
import * as check from './checks.js'
import { Provider, type TokenProvider, environment, reasonOf, send } from './environment.js'
import { FeedCardError, errorOf, invalidInput } from './errors.js'
import { native } from './load.js'
import { Outcome } from './outcome.js'

/** Which kind of id the user ids are. */
export type UserIdType = 'open_id' | 'union_id' | 'user_id'

/**
 * Who the client is (`appId` with `appSecret`, or `tenantAccessToken`, or `tokenProvider`), where the
 * platform is, how long a call may take and how fast calls are made. Durations are in milliseconds.
 */
export interface ClientOptions {
  /** The app's id, `cli_…`. */
  appId?: string | undefined
  /** The app's secret. */
  appSecret?: string | undefined
  /** Makes the app a store app, acting for this tenant. */
  tenantKey?: string | undefined
  /** The ticket that the platform pushed to the store app last; later ones go to `setAppTicket`. */
  appTicket?: string | undefined
  /** A token to use as it is. It cannot be renewed: at its end, two hours at most, calls fail. */
  tenantAccessToken?: string | undefined
  /**
   * Supplies the tokens instead of an app's id and secret. Asked once however many calls wait, again when
   * the token nears its end (after a minute, where it does not say when), and when the platform refuses it.
   */
  tokenProvider?: TokenProvider | undefined
  /** Where the platform is; `https://open.feishu.cn` unless said. */
  baseUrl?: string | undefined
  /** Allows `http` to a host that is not this machine. The token travels readable to everyone. */
  allowHttp?: boolean | undefined
  /** An HTTP proxy, `http://user:password@host:port`; else `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say. */
  proxy?: string | undefined
  /** The path of a PEM file with certificates to trust besides the usual ones. */
  caCerts?: string | undefined
  /** Appended to the client's own `User-Agent`. */
  userAgent?: string | undefined
  /** How long one call may take with all its replays and waiting; 30,000 unless said. */
  timeoutMs?: number | undefined
  /** How long making a connection may take; 5,000 unless said. */
  connectTimeoutMs?: number | undefined
  /** How long one attempt may take; all that remains of the call's timeout unless said. */
  attemptTimeoutMs?: number | undefined
  /** How often a failed attempt is replayed; 3 unless said. */
  maxRetries?: number | undefined
  /** How many calls to make at most; 50 a second and 1,000 a minute unless said, `false` for no pacing. */
  rateLimit?: { readonly perSecond: number; readonly perMinute: number } | false | undefined
  /** Another client's `quota`, to share it: the platform counts by app and tenant, not by client. */
  quota?: Quota | undefined
  /** How long after its connection closed a request may still arrive at the platform; 5,000 unless said. */
  lateArrivalMs?: number | undefined
  /** Calls with more users than this are split; 50 unless said. */
  maxUsersPerRequest?: number | undefined
}

/** What every call may say. */
export interface CallOptions {
  /** Which kind of id the user ids are; `open_id` unless said. */
  userIdType?: UserIdType | undefined
  /** Stops the call when aborted: its promise rejects with the signal's reason. */
  signal?: AbortSignal | undefined
  /** The deadline of this call with all its replays and waiting; the client's unless said. */
  timeoutMs?: number | undefined
}

/** A call for the bot's own chat. */
export interface SetBotTimeSensitive extends CallOptions {
  /** For whom. Repeated ids are sent once. */
  userIds: readonly string[]
  /** `true` pins, `false` unpins. */
  timeSensitive: boolean
}

/** A call for a group chat. */
export interface SetTimeSensitive extends SetBotTimeSensitive {
  /** The group chat, `oc_…`. */
  feedCardId: string
}

/**
 * Pins group chats to the top of people's message lists, and unpins them again.
 *
 * It fetches and renews the app's token, stays within the platform's quota, replays what is safe to
 * replay, keeps opposite calls on one chat in order, and bounds every wait by a deadline.
 *
 * @example
 * ```ts
 * import { Client } from 'feishu-feed-card'
 *
 * const client = new Client({ appId: 'cli_…', appSecret })
 * const outcome = await client.setTimeSensitive({
 *   feedCardId: 'oc_…',
 *   userIds: ['ou_…'],
 *   timeSensitive: true,
 * })
 * outcome.throwIfFailed()
 * ```
 */
export class Client {
  readonly #native: NativeClient
  readonly #provider: Provider | undefined
  #inFlight = 0
  #closing: Promise<void> | undefined
  #idle = () => {}

  /** @throws {@link InvalidInputError} that names the option which is wrong. */
  constructor(options: ClientOptions) {
    try {
      const { options: checked, tokenProvider } = checkOptions(options)
      this.#provider = tokenProvider && new Provider(tokenProvider)
      const made = native.createClient(environment, checked, this.#provider?.id)
      if (!(made instanceof native.NativeClient)) {
        throw errorOf(made)
      }
      this.#native = made
    } catch (error) {
      throw above(error, Client)
    }
  }

  /**
   * A client of the app in `FEISHU_APP_ID`, `FEISHU_APP_SECRET` and `FEISHU_BASE_URL`, where the options do
   * not say otherwise.
   */
  static fromEnv(options: ClientOptions = {}): Client {
    const { FEISHU_APP_ID, FEISHU_APP_SECRET, FEISHU_BASE_URL } = process.env
    const { appId, appSecret, baseUrl } = check.fields('options', options, optionNames) as ClientOptions
    return new Client({
      ...options,
      appId: appId === undefined ? FEISHU_APP_ID || undefined : appId,
      appSecret: appSecret === undefined ? FEISHU_APP_SECRET || undefined : appSecret,
      baseUrl: baseUrl === undefined ? FEISHU_BASE_URL || undefined : baseUrl,
    })
  }

  /**
   * Pins (`timeSensitive: true`) or unpins a group chat at the top of these users' message lists.
   *
   * The bot must be in the chat, and so must the users: those who are not come back in the outcome's
   * `failedUserReasons`. The call sets a state, so making it twice does no harm.
   *
   * @example
   * ```ts
   * const outcome = await client.setTimeSensitive({
   *   feedCardId: 'oc_…', userIds: ['ou_…', 'ou_…'], timeSensitive: true,
   *   signal: AbortSignal.any([shutdown, request.signal]), timeoutMs: 5000,
   * })
   * ```
   */
  async setTimeSensitive(call: SetTimeSensitive): Promise<Outcome> {
    return await this.#make(this.setTimeSensitive, call, groupCallNames)
  }

  /** Pins or unpins the bot's own chat at the top of these users' message lists. */
  async setBotTimeSensitive(call: SetBotTimeSensitive): Promise<Outcome> {
    return await this.#make(this.setBotTimeSensitive, call, botCallNames)
  }

  /** Hands over the ticket that the platform pushed to a store app's event endpoint. */
  setAppTicket(appTicket: string): void {
    try {
      const error = this.#native.setAppTicket(check.string('appTicket', appTicket, 'a ticket'))
      if (error) {
        throw errorOf(error)
      }
    } catch (error) {
      throw above(error, this.setAppTicket)
    }
  }

  /** The client's quota, to share it with another client of the same app; none without pacing. */
  get quota(): Quota | undefined {
    return this.#native.quota ?? undefined
  }

  /**
   * Waits for the calls in flight, each of which has its deadline, and lets go of the connections. Calls
   * made later fail. A client that is not closed does not keep the process alive.
   */
  close(): Promise<void> {
    this.#native.close()
    this.#closing ??= new Promise((resolve) => {
      this.#idle = resolve
      if (this.#inFlight === 0) {
        resolve()
      }
    })
    return this.#closing
  }

  /** `await using client = new Client(…)`: see {@link Client.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #make(
    method: Function,
    given: CallOptions,
    names: readonly (keyof SetTimeSensitive)[],
  ): Promise<Outcome> {
    this.#inFlight += 1
    try {
      const { arguments: call, signal } = checkCall(method.name, given, names)
      if (signal?.aborted) {
        throw reasonOf(signal)
      }
      const { outcome: data, error, panic } = await send(this.#native, call, signal)
      if (panic !== undefined) {
        throw new Error(`feishu-feed-card: this is a bug, please report it: ${panic}`)
      }
      const outcome = data && new Outcome(data)
      if (error !== undefined) {
        throw errorOf(error, { ...this.#thrown(error), ...(outcome && { outcome }) })
      }
      return outcome as Outcome
    } catch (error) {
      throw above(error, method)
    } finally {
      this.#inFlight -= 1
      if (this.#inFlight === 0) {
        this.#idle()
      }
    }
  }

  /** What the token provider threw, as the cause; the core knows only its text. */
  #thrown({ question }: ErrorData): { cause: unknown } | undefined {
    const failure = this.#provider?.failure
    return question !== undefined && failure?.question === question ? { cause: failure.thrown } : undefined
  }
}

const optionNames = [
  'appId',
  'appSecret',
  'tenantKey',
  'appTicket',
  'tenantAccessToken',
  'tokenProvider',
  'baseUrl',
  'allowHttp',
  'proxy',
  'caCerts',
  'userAgent',
  'timeoutMs',
  'connectTimeoutMs',
  'attemptTimeoutMs',
  'maxRetries',
  'rateLimit',
  'quota',
  'lateArrivalMs',
  'maxUsersPerRequest',
] as const satisfies (keyof ClientOptions)[]
const botCallNames = ['userIds', 'timeSensitive', 'userIdType', 'signal', 'timeoutMs'] as const
const groupCallNames = ['feedCardId', ...botCallNames] as const

function checkCall(method: string, given: unknown, names: readonly (keyof SetTimeSensitive)[]) {
  const { feedCardId, userIds, timeSensitive, userIdType, signal, timeoutMs } = check.fields(
    method,
    given,
    names,
  )
  const call: Arguments = {
    userIds: check.strings('userIds', userIds, 'an array of user ids'),
    timeSensitive: check.boolean('timeSensitive', timeSensitive),
  }
  if (names === groupCallNames) {
    call.feedCardId = check.string('feedCardId', feedCardId, "a group chat's id, `oc_…`")
  }
  if (userIdType !== undefined) {
    call.userIdType = check.string('userIdType', userIdType, '`open_id`, `union_id` or `user_id`')
  }
  if (timeoutMs !== undefined) {
    call.timeoutMs = check.number('timeoutMs', timeoutMs, 'a number of milliseconds')
  }
  return { arguments: call, signal: signal === undefined ? undefined : check.signal(signal) }
}

function checkOptions(options: unknown): { options: Options; tokenProvider: TokenProvider | undefined } {
  const given = check.fields('options', options, optionNames)
  const { tokenProvider, rateLimit, quota } = given
  const checked: Options = { unlimited: rateLimit === false }
  for (const name of texts) {
    if (given[name] !== undefined) {
      checked[name] = check.string(name, given[name], 'a string')
    }
  }
  for (const name of numbers) {
    if (given[name] !== undefined) {
      checked[name] = check.number(
        name,
        given[name],
        name.endsWith('Ms') ? 'a number of milliseconds' : 'a number',
      )
    }
  }
  if (given.allowHttp !== undefined) {
    checked.allowHttp = check.boolean('allowHttp', given.allowHttp)
  }
  if (rateLimit !== undefined && rateLimit !== false) {
    const { perSecond, perMinute } = check.fields('rateLimit', rateLimit, ['perSecond', 'perMinute'])
    checked.rateLimit = {
      perSecond: check.number('rateLimit.perSecond', perSecond, 'a whole number'),
      perMinute: check.number('rateLimit.perMinute', perMinute, 'a whole number'),
    }
  }
  if (quota !== undefined) {
    if (!(quota instanceof native.Quota)) {
      throw invalidInput('quota', check.kindOf(quota), "another client's `quota`")
    }
    checked.quota = quota
  }
  if (tokenProvider !== undefined && typeof tokenProvider !== 'function') {
    throw invalidInput(
      'tokenProvider',
      check.kindOf(tokenProvider),
      'a function that returns a token or a promise of one',
    )
  }
  return { options: checked, tokenProvider: tokenProvider as TokenProvider | undefined }
}

const texts = [
  'appId',
  'appSecret',
  'tenantKey',
  'appTicket',
  'tenantAccessToken',
  'baseUrl',
  'proxy',
  'caCerts',
  'userAgent',
] as const
const numbers = [
  'timeoutMs',
  'connectTimeoutMs',
  'attemptTimeoutMs',
  'maxRetries',
  'lateArrivalMs',
  'maxUsersPerRequest',
] as const

/** The error with a stack that begins at the caller of `method`, where the engine can tell. */
function above(error: unknown, method: Function): unknown {
  if (error instanceof FeedCardError) {
    const { stack } = error
    Error.captureStackTrace(error, method)
    if (stack !== undefined && !error.stack?.includes('\n    at ')) {
      error.stack = stack
    }
  }
  return error
}
