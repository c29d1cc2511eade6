import type { ErrorData, NativeClient, OptionData, Quota } from './binding.js'
import {
  type CallOptions,
  type SetBotTimeSensitive,
  type SetTimeSensitive,
  botCallNames,
  checkCall,
  groupCallNames,
} from './call.js'
import * as check from './checks.js'
import {
  CallContext,
  Callbacks,
  type ClientEvent,
  type OnEvent,
  type TokenProvider,
  bugOf,
  environment,
  messageFor,
  reasonOf,
  send,
} from './environment.js'
import { FeedCardError, InvalidInputError, errorOf, invalidInput } from './errors.js'
import { native } from './load.js'
import { type Exactly, Many, type ManyOptions, type ManyRequest, type Owner, checkMany } from './many.js'
import { type Outcome, outcomeOf } from './outcome.js'

/**
 * Options of a client. Required: `appId` and `appSecret`, or `tenantAccessToken`, or `tokenProvider`. Durations are in
 * milliseconds. Inherited properties are an error.
 */
export interface ClientOptions {
  /** `cli_…` */
  appId?: string | undefined
  appSecret?: string | undefined
  /** The tenant that a store app acts for. */
  tenantKey?: string | undefined
  /** The ticket last pushed to the store app. Pass later ones to `setAppTicket`. */
  appTicket?: string | undefined
  /** A token that is not renewed. Calls fail after it expires. */
  tenantAccessToken?: string | undefined
  /**
   * Called for the first token, before a token expires (after a minute if its lifetime is unknown), and with
   * `refusedToken` after the platform refused a token.
   */
  tokenProvider?: TokenProvider | undefined
  /** `https://open.larksuite.com` for Lark. Default: `https://open.feishu.cn`. */
  baseUrl?: string | undefined
  /** Allows `http` to other machines. The token is then sent unencrypted. */
  allowHttp?: boolean | undefined
  /** `http://user:password@host:port`, also https or SOCKS. `false`: no proxy. Default: from the environment. */
  proxy?: string | false | undefined
  /** Path of a PEM file with further certificates to trust. */
  caCerts?: string | undefined
  /** Text appended to the `User-Agent`. */
  userAgent?: string | undefined
  /** Deadline of a call, including retries and waiting. Default: 30,000. */
  timeoutMs?: number | undefined
  /** Default: 5,000. */
  connectTimeoutMs?: number | undefined
  /** Deadline of one attempt. Default: the rest of the call's. */
  attemptTimeoutMs?: number | undefined
  /** Default: 3. */
  maxRetries?: number | undefined
  /** Default: 50 calls per second and 1,000 per minute. `false`: no limit. */
  rateLimit?: { perSecond: number; perMinute: number } | false | undefined
  /** Another client's quota, to share it. The platform counts per app and tenant. */
  quota?: Quota | undefined
  /** How long an unanswered request may still arrive after its connection closed (see the README). Default: 5,000. */
  lateArrivalMs?: number | undefined
  /** Calls with more users are split. Default: 50. */
  maxUsersPerRequest?: number | undefined
  /** Receives all events, in the call's async context. An exception it throws is uncaught. */
  onEvent?: ((event: ClientEvent) => void) | undefined
}

export interface CloseOptions {
  /** How long to wait for calls in progress. 0 stops them immediately. Default: until their deadlines. */
  timeoutMs?: number | undefined
}

let makeCall: (
  client: Client,
  method: 'setTimeSensitive' | 'setBotTimeSensitive',
  given: CallOptions,
  names: readonly (keyof SetTimeSensitive)[],
) => Promise<Outcome>

/**
 * Pins group chats to the top of users' message lists, and unpins them.
 *
 * @example
 * ```ts
 * import { Client } from 'feishu-feed-card'
 *
 * const client = new Client({ appId: 'cli_…', appSecret })
 * const outcome = await client.setTimeSensitive({ feedCardId: 'oc_…', userIds: ['ou_…'], timeSensitive: true })
 * outcome.throwIfFailed()
 * ```
 */
export class Client {
  readonly #native: NativeClient
  readonly #callbacks: Callbacks | undefined
  #inFlight = 0
  #closing: Promise<void> | undefined
  #idle = () => {}

  /** @throws {@link InvalidInputError} An option is wrong. */
  constructor(options: ClientOptions) {
    try {
      const { options: checked, tokenProvider, onEvent } = checkOptions(options)
      this.#callbacks = (tokenProvider ?? onEvent) && new Callbacks(tokenProvider, onEvent)
      const id = this.#callbacks?.id
      const made = native.createClient(environment, checked, tokenProvider && id, onEvent && id)
      if (!(made instanceof native.NativeClient)) {
        throw errorOf(made)
      }
      this.#native = made
    } catch (error) {
      throw startStackAbove(error, new.target)
    }
  }

  /** Reads `FEISHU_APP_ID`, `FEISHU_APP_SECRET` and `FEISHU_BASE_URL`. Options take precedence. */
  static fromEnv(options: ClientOptions = {}): Client {
    const given = check.fields('options', options, optionNames)
    const unset = Object.entries(variables).filter(([name]) => given[name] === undefined)
    // Own properties only: `process.env` inherits from `Object.prototype`.
    const found = unset
      .filter(([, variable]) => Object.hasOwn(process.env, variable))
      .map(([name, variable]) => [name, process.env[variable] || undefined])
    try {
      return new this({ ...options, ...Object.fromEntries(found) })
    } catch (error) {
      const [, variable] = unset.find(([name]) => (error as FeedCardError).field === name) ?? []
      throw startStackAbove(
        variable === undefined ? error : withVariable(variable, error as FeedCardError),
        this.fromEnv,
      )
    }
  }

  /**
   * Pins or unpins a group chat at the top of these users' message lists.
   *
   * The bot must be in the chat. `failedUserReasons` lists users outside it. Repeating a call is harmless.
   *
   * @example
   * ```ts
   * await client.setTimeSensitive({ feedCardId, userIds, timeSensitive: false, signal, timeoutMs: 5000 })
   * ```
   */
  setTimeSensitive(call: SetTimeSensitive): Promise<Outcome> {
    return makeCall(this, 'setTimeSensitive', call, groupCallNames)
  }

  /** Pins or unpins the bot's own chat. */
  setBotTimeSensitive(call: SetBotTimeSensitive): Promise<Outcome> {
    return makeCall(this, 'setBotTimeSensitive', call, botCallNames)
  }

  /**
   * Makes many calls as fast as the quota allows. Iterates over the results as they come in.
   *
   * @example
   * ```ts
   * const requests = rows.map(({ id, chat }) => ({ feedCardId: chat, userIds, timeSensitive: true, tag: id }))
   * for await (const { tag, error } of client.setTimeSensitiveMany(requests)) {
   *   if (error) console.error(tag, error.message)
   * }
   * ```
   */
  setTimeSensitiveMany<R extends ManyRequest>(
    requests: Iterable<Exactly<R>> | AsyncIterable<Exactly<R>>,
    options: ManyOptions = {},
  ): Many<R> {
    try {
      const checked = checkMany(requests, options)
      const context = CallContext.of(this.#callbacks, checked.options.onEvent)
      const { id, wantsEvents = false } = context ?? {}
      const made = this.#native.many(
        // Without a prototype, as in `checkOptions`.
        Object.assign(Object.create(null) as object, {
          ...checked.arguments,
          ...(id !== undefined && { context: id }),
          wantsEvents,
        }),
      )
      if (!(made instanceof native.NativeMany)) {
        throw errorOf(made)
      }
      context?.listen(true)
      const owner: Owner = { context, errorOf: (data, outcome) => this.#errorOf(data, outcome) }
      return new Many<R>(made, owner, requests, checked.options)
    } catch (error) {
      throw startStackAbove(error, this.setTimeSensitiveMany)
    }
  }

  /** Sets the ticket that the platform pushed to the store app. */
  setAppTicket(appTicket: string): void {
    try {
      const error = this.#native.setAppTicket(check.string('appTicket', appTicket, 'a ticket'))
      if (error) {
        throw errorOf(error)
      }
    } catch (error) {
      throw startStackAbove(error, this.setAppTicket)
    }
  }

  /** To share with another client of the app. `undefined` without a rate limit. */
  get quota(): Quota | undefined {
    return this.#native.quota ?? undefined
  }

  /**
   * Closes the client, and waits for calls in progress. New calls reject with a `ClientClosedError`, as do calls
   * that are not finished after `timeoutMs`. Loops over many calls read no more requests, and throw this error at the
   * end if requests were left.
   */
  async close(options: CloseOptions = {}): Promise<void> {
    try {
      const { timeoutMs } = check.fields('close', options, ['timeoutMs'])
      const timeout =
        timeoutMs === undefined ? undefined : check.number('timeoutMs', timeoutMs, 'a number of milliseconds')
      await messageFor((id) => {
        const error = this.#native.close(id, timeout)
        if (error) {
          throw errorOf(error)
        }
        this.#closing ??= this.#end()
      })
    } catch (error) {
      throw startStackAbove(error, this.close)
    }
    await this.#closing
  }

  /** {@link Client.close} */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #end(): Promise<void> {
    const idle = new Promise<void>((resolve) => {
      this.#idle = resolve
    })
    if (this.#inFlight > 0) {
      await idle
    }
  }

  static {
    makeCall = async (client, method, given, names) => {
      // Both public methods share this function. A second `async` function around it would cost one more promise per
      // call. It is not a private method, so that a method detached from its client rejects instead of throwing. It
      // does not use the class's name, because the bundle would then rename the class. After the first `await`, the
      // public method is no longer on the stack.
      let isWithin = true
      client.#inFlight += 1
      try {
        const call = checkCall(method, given, names)
        const { signal } = call
        if (signal?.aborted) {
          throw reasonOf(signal)
        }
        const sent = send(client.#native, call, CallContext.of(client.#callbacks, call.onEvent))
        isWithin = false
        const result = await sent
        if (result.panic !== undefined) {
          throw bugOf(result.panic)
        }
        const outcome = outcomeOf(result, call.userIds)
        if (result.error !== undefined) {
          throw client.#errorOf(result.error, outcome)
        }
        return outcome as Outcome
      } catch (error) {
        throw startStackAbove(error, isWithin ? client[method] : makeCall)
      } finally {
        client.#inFlight -= 1
        if (client.#inFlight === 0) {
          client.#idle()
        }
      }
    }
  }

  /** Sets the token provider's exception as the `cause`. The core has only its text. */
  #errorOf(data: ErrorData, outcome: Outcome | undefined): FeedCardError {
    const failure = this.#callbacks?.failure
    const isKnown = data.providerCall !== undefined && failure?.providerCall === data.providerCall
    return errorOf(data, { ...(isKnown && { cause: failure.thrown }), ...(outcome && { outcome }) })
  }
}

const variables = { appId: 'FEISHU_APP_ID', appSecret: 'FEISHU_APP_SECRET', baseUrl: 'FEISHU_BASE_URL' }

/** Names the variable. The core cannot: a worker thread's `process.env` may differ from the process's environment. */
function withVariable(variable: string, { message, field }: FeedCardError): InvalidInputError {
  const hint = `Check the environment variable ${variable}`
  return new InvalidInputError(`${message}. ${hint}`, { hint, ...(field !== undefined && { field }) })
}

const clientOptions = native.clientOptions()
const optionNames = [...clientOptions.map(({ name }) => name), 'onEvent']

function checkOptions(options: unknown) {
  const given = check.fields('options', options, optionNames)
  // Without a prototype, so that the native module does not read options from a polluted `Object.prototype`.
  const checked = Object.create(null) as Record<string, unknown>
  for (const { name, kind } of clientOptions) {
    if (given[name] !== undefined) {
      checked[name] = checks[kind](name, given[name])
    }
  }
  return {
    options: checked,
    tokenProvider: checked['tokenProvider'] as TokenProvider | undefined,
    onEvent: check.callback('onEvent', given['onEvent']) as OnEvent | undefined,
  }
}

const text = (name: string, value: unknown) => check.string(name, value, 'a string')
const checks: Record<OptionData['kind'], (name: string, value: unknown) => unknown> = {
  text,
  secret: text,
  path: text,
  flag: check.boolean,
  milliseconds: (name, value) => check.number(name, value, 'a number of milliseconds'),
  count: (name, value) => check.number(name, value, 'a number'),
  proxy: (name, value) =>
    value === false ? value : check.string(name, value, "a proxy's URL, or false for no proxy"),
  rateLimit: (name, value) => {
    if (value === false) {
      return value
    }
    const { perSecond, perMinute } = check.fields(name, value, ['perSecond', 'perMinute'])
    return {
      perSecond: check.number(`${name}.perSecond`, perSecond, 'a whole number'),
      perMinute: check.number(`${name}.perMinute`, perMinute, 'a whole number'),
    }
  },
  quota: (name, value) => {
    if (!(value instanceof native.Quota)) {
      throw invalidInput(name, check.kindOf(value), "another client's `quota`")
    }
    return value
  },
  tokenProvider: (name, value) => {
    if (typeof value !== 'function') {
      throw invalidInput(name, check.kindOf(value), 'a function that returns a token or a promise of one')
    }
    return value
  },
}

/** Makes the stack of a FeedCardError start at the caller of `method`, if the engine supports it. */
function startStackAbove(error: unknown, method: Function): unknown {
  if (error instanceof FeedCardError) {
    const { stack } = error
    Error.captureStackTrace(error, method)
    if (stack !== undefined && !error.stack?.includes('\n    at ')) {
      error.stack = stack
    }
  }
  return error
}
