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
  ask,
  bugOf,
  environment,
  reasonOf,
  send,
} from './environment.js'
import { FeedCardError, InvalidInputError, errorOf, invalidInput } from './errors.js'
import { native } from './load.js'
import { type Exactly, Many, type ManyOptions, type ManyRequest, type Owner, checkMany } from './many.js'
import { type Outcome, outcomeOf } from './outcome.js'

/**
 * Who the client is: `appId` with `appSecret`, or `tenantAccessToken`, or `tokenProvider`. All else has a
 * default. Durations are in milliseconds. Only own properties count; those of a class are refused.
 */
export interface ClientOptions {
  /** `cli_…` */
  appId?: string | undefined
  appSecret?: string | undefined
  /** Makes it a store app, acting for this tenant. */
  tenantKey?: string | undefined
  /** The one pushed last; later ones go to `setAppTicket`. */
  appTicket?: string | undefined
  /** Never renewed: at its end, two hours at most, calls fail. */
  tenantAccessToken?: string | undefined
  /**
   * Asked once for all calls that wait, near the token's end (a minute if unknown), and when it is refused:
   * then it gets `refusedToken`.
   */
  tokenProvider?: TokenProvider | undefined
  /** `https://open.larksuite.com` for Lark. Default: `https://open.feishu.cn`. */
  baseUrl?: string | undefined
  /** Allows `http` to other machines: the token travels readable to everyone. */
  allowHttp?: boolean | undefined
  /** `http://user:password@host:port`, also https or SOCKS; `false` for none. Default: the environment's. */
  proxy?: string | false | undefined
  /** A PEM file to trust besides the usual authorities and `NODE_EXTRA_CA_CERTS`. */
  caCerts?: string | undefined
  /** Appended to ours. */
  userAgent?: string | undefined
  /** For one call, retries and waiting included. Default: 30,000. */
  timeoutMs?: number | undefined
  /** Default: 5,000. */
  connectTimeoutMs?: number | undefined
  /** For one attempt. Default: all that remains of the call's timeout. */
  attemptTimeoutMs?: number | undefined
  /** Retries of one request. Default: 3. */
  maxRetries?: number | undefined
  /** Default: 50 calls a second, 1,000 a minute. `false` for no pacing. */
  rateLimit?: { perSecond: number; perMinute: number } | false | undefined
  /** Another client's, to share it: the platform counts by app and tenant. */
  quota?: Quota | undefined
  /** How long a request may arrive after its connection closed (see the README). Default: 5,000. */
  lateArrivalMs?: number | undefined
  /** Calls with more users are split. Default: 50. */
  maxUsersPerRequest?: number | undefined
  /** Gets every event, in the call's async context. What it throws is an uncaught exception. */
  onEvent?: ((event: ClientEvent) => void) | undefined
}

export interface CloseOptions {
  /** How long to wait for calls in flight. Default: until their own timeouts. */
  timeoutMs?: number | undefined
}

let makeCall: (
  client: Client,
  method: 'setTimeSensitive' | 'setBotTimeSensitive',
  given: CallOptions,
  names: readonly (keyof SetTimeSensitive)[],
) => Promise<Outcome>

/**
 * Pins group chats to the top of people's message lists, and unpins them again.
 *
 * Renews tokens, keeps the quota and the order of opposite calls, retries, and bounds every wait.
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
  // Weak: one that was begun and dropped is collected, and its calls stop.
  #inFlight = 0
  #closing: Promise<void> | undefined
  #idle = () => {}

  /** @throws {@link InvalidInputError} with the wrong `field`. */
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
      throw above(error, new.target)
    }
  }

  /** Takes `FEISHU_APP_ID`, `FEISHU_APP_SECRET` and `FEISHU_BASE_URL` where the options do not say. */
  static fromEnv(options: ClientOptions = {}): Client {
    const given = check.fields('options', options, optionNames)
    const taken = Object.entries(variables).filter(([name]) => given[name] === undefined)
    // `process.env` inherits from `Object.prototype`.
    const found = taken
      .filter(([, variable]) => Object.hasOwn(process.env, variable))
      .map(([name, variable]) => [name, process.env[variable] || undefined])
    try {
      return new this({ ...options, ...Object.fromEntries(found) })
    } catch (error) {
      const [, variable] = taken.find(([name]) => (error as FeedCardError).field === name) ?? []
      throw above(variable === undefined ? error : takenFrom(variable, error as FeedCardError), this.fromEnv)
    }
  }

  /**
   * Pins or unpins a group chat at the top of these users' message lists.
   *
   * The bot must be in the chat. Users who are not come back as `failedUserReasons`. Calling twice does no harm.
   *
   * @example
   * ```ts
   * await client.setTimeSensitive({ feedCardId, userIds, timeSensitive: false, signal, timeoutMs: 5000 })
   * ```
   */
  setTimeSensitive(call: SetTimeSensitive): Promise<Outcome> {
    return makeCall(this, 'setTimeSensitive', call, groupCallNames)
  }

  /** The same for the bot's own chat. */
  setBotTimeSensitive(call: SetBotTimeSensitive): Promise<Outcome> {
    return makeCall(this, 'setBotTimeSensitive', call, botCallNames)
  }

  /**
   * Makes many calls as fast as the quota allows; gives each result as it comes back.
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
      const { id, tells = false } = context ?? {}
      const made = this.#native.many(
        // Without a prototype, as a client's options.
        Object.assign(Object.create(null) as object, {
          ...checked.arguments,
          ...(id !== undefined && { context: id }),
          tellsEvents: tells,
        }),
      )
      if (!(made instanceof native.NativeMany)) {
        throw errorOf(made)
      }
      context?.listen(true)
      const owner: Owner = { context, errorOf: (data, outcome) => this.#errorOf(data, outcome) }
      return new Many<R>(made, owner, requests, checked.options)
    } catch (error) {
      throw above(error, this.setTimeSensitiveMany)
    }
  }

  /** Hands over a ticket that the platform pushed to the store app. */
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

  /** To share with another client of the app; none without pacing. */
  get quota(): Quota | undefined {
    return this.#native.quota ?? undefined
  }

  /**
   * Closes the client: new calls fail with a `ClientClosedError`. Loops over many read no more requests, finish those
   * in progress, and then throw that error if requests were left. Waits for all calls in progress; those that remain
   * after `timeoutMs` (0: at once) are stopped and reject with a `ClientClosedError`.
   */
  async close(options: CloseOptions = {}): Promise<void> {
    try {
      const { timeoutMs } = check.fields('close', options, ['timeoutMs'])
      const timeout =
        timeoutMs === undefined ? undefined : check.number('timeoutMs', timeoutMs, 'a number of milliseconds')
      await ask((id) => {
        const error = this.#native.close(id, timeout)
        if (error) {
          throw errorOf(error)
        }
        this.#closing ??= this.#end()
      })
    } catch (error) {
      throw above(error, this.close)
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
      // No second `async` function around this one, at a promise a call: once it has waited, the method is no
      // longer on the stack. Not a method of its own, so that one taken off its client rejects and does not throw;
      // and without the class's name, for which the bundle would rename the class.
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
        const answer = await sent
        if (answer.panic !== undefined) {
          throw bugOf(answer.panic)
        }
        const outcome = outcomeOf(answer, call.userIds)
        if (answer.error !== undefined) {
          throw client.#errorOf(answer.error, outcome)
        }
        return outcome as Outcome
      } catch (error) {
        throw above(error, isWithin ? client[method] : makeCall)
      } finally {
        client.#inFlight -= 1
        if (client.#inFlight === 0) {
          client.#idle()
        }
      }
    }
  }

  /** With what the token provider threw as the cause; the core knows only its text. */
  #errorOf(data: ErrorData, outcome: Outcome | undefined): FeedCardError {
    const failure = this.#callbacks?.failure
    const isKnown = data.question !== undefined && failure?.question === data.question
    return errorOf(data, { ...(isKnown && { cause: failure.thrown }), ...(outcome && { outcome }) })
  }
}

const variables = { appId: 'FEISHU_APP_ID', appSecret: 'FEISHU_APP_SECRET', baseUrl: 'FEISHU_BASE_URL' }

/** Not by the core: a worker thread's environment is not the process's. */
function takenFrom(variable: string, { message, field }: FeedCardError): InvalidInputError {
  const hint = `It is taken from the environment variable ${variable}`
  return new InvalidInputError(`${message}. ${hint}`, { hint, ...(field !== undefined && { field }) })
}

const clientOptions = native.clientOptions()
const optionNames = [...clientOptions.map(({ name }) => name), 'onEvent']

function checkOptions(options: unknown) {
  const given = check.fields('options', options, optionNames)
  // Without a prototype: the native module would find in a polluted one what is absent here.
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
    value === false ? value : check.string(name, value, "a proxy's URL, or false for none"),
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
