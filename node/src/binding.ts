// Written by scripts/build.mjs from crates/node/src; do not edit.

/**
 * An environment of Node. The facade creates it when it is loaded.
 *
 * @internal
 */
export declare class Environment {
  /** `deliver` is called with a JSON array of messages. It must not throw. */
  constructor(deliver: (arg0: string) => unknown)
  /** Stops a call in progress. No message with its result will come. */
  abort(id: number): void
  /** Sets the result of a token provider: a token, or an error message. */
  provideToken(id: number, token?: string | undefined | null, expiresInMs?: number | undefined | null, failure?: string | undefined | null): void
}

/**
 * An error.
 *
 * @internal
 */
export interface ErrorData {
  kind: string
  message: string
  field?: string
  platformCode?: number
  msg?: string
  httpStatus?: number
  logId?: string
  retryable: boolean
  retryAfterMs?: number
  attempts: number
  call?: number
  station?: string
  reason?: string
  hint?: string
  permissionViolations: Array<PermissionViolation>
  fieldViolations: Array<FieldViolation>
  users: Users
  /** Messages of the causes, outermost first. */
  causes: Array<string>
  /** The id of the failed call of a token provider, if this was the cause. The facade keeps the provider's exception. */
  providerCall?: number
}

/** A user that was not reached. `errorCode` can be 0. */
export interface FailedUserReason {
  errorCode: number
  /** Such as `The user is not in the chat`. */
  errorMessage: string
  /** Needs the field permission of the id's type: `contact:user.employee_id:readonly` for `user_id`. */
  userId?: string
}

/** A field that the platform refused. */
export interface FieldViolation {
  field: string
  /** As text. */
  value: string
  description: string
}

/**
 * The options of many calls.
 *
 * @internal
 */
export interface ManyArguments {
  concurrency?: number
  totalTimeoutMs?: number
  /** Number of requests, if known. */
  total?: number
  /** The context of the calls, if there is a listener or a token provider. */
  context?: number
  /** Whether the context's listeners get the calls' events. */
  wantsEvents: boolean
}

/**
 * A client of the core.
 *
 * @internal
 */
export declare class NativeClient {
  private constructor()
  #native
  /**
   * Starts a call. The environment's `deliver` gets its result, under this id. Without a `feedCardId`, the call is for
   * the bot's own chat. `wantsEvents` is absent for a call without a context. Otherwise the id is also that of the
   * context, and the value says whether the context's listeners get the call's events.
   */
  start(id: number, userIds: Array<string>, timeSensitive: boolean, feedCardId?: string | undefined | null, userIdType?: string | undefined | null, timeoutMs?: number | undefined | null, wantsEvents?: boolean | undefined | null): void
  /** Prepares many calls. Nothing is sent until the first results are requested. */
  many(arguments: ManyArguments): NativeMany | ErrorData
  /** Sets a store app's new ticket. */
  setAppTicket(appTicket: string): ErrorData | null
  /** The quota, or `null` without a rate limit. */
  get quota(): Quota | null
  /**
   * Refuses new calls, stops calls in progress after the timeout, and drops connections and secrets when no call uses
   * them. When no call is in progress, the environment's `deliver` gets a message with this id. If the timeout is
   * invalid, returns an error and does nothing.
   */
  close(id: number, timeoutMs?: number | undefined | null): ErrorData | null
}

/**
 * The state of many calls. The facade reads requests while there is room.
 *
 * @internal
 */
export declare class NativeMany {
  private constructor()
  #native
  /** Maximum number of requests that the facade has read and that have no result yet. */
  readonly concurrency: number
  /**
   * Maximum time for which the facade reads its source without a pause, so that it does not delay results or block the
   * event loop.
   */
  readonly readsForMs: number
  /**
   * Accepts the next requests: a JSON array, with `null` for each request that the facade rejected. Their indices count
   * from 0.
   */
  feed(requests: string): void
  /** Accepts a request that threw an exception while it was read, with the user ids that were read before. */
  feedUnreadable(userIds: Array<string>): void
  /** Reports the end of the requests. */
  end(): void
  /** Requests the next results. The environment's `deliver` gets them, under this id. */
  nextBatch(id: number): void
  /** Stops all calls. The environment's `deliver` gets the report, under this id. */
  report(id: number): void
}

/**
 * A running sandbox.
 *
 * @internal
 */
export declare class NativeSandbox {
  private constructor()
  #native
  /** `http://127.0.0.1:…` */
  readonly baseUrl: string
  /** `https://127.0.0.1:…`. Absent without https. */
  readonly httpsBaseUrl?: string
  /** The certificate to trust for https. */
  readonly caPem?: string
  /** Runs a control. Argument and result are JSON. */
  control(control: string): string | Refusal
  /** Stops the server and closes its connections. */
  close(): void
}

/**
 * An option of a client, from which the facade knows the type to check.
 *
 * @internal
 */
export interface OptionData {
  name: string
  kind: 'text' | 'secret' | 'flag' | 'path' | 'milliseconds' | 'count' | 'proxy' | 'rateLimit' | 'quota' | 'tokenProvider'
}

/**
 * The outcome of a call.
 *
 * @internal
 */
export interface OutcomeData {
  ok: boolean
  failedUserReasons: Array<FailedUserReason>
  logIds: Array<string>
  requests: number
  call?: number
  users: Users
  /** The error for `throwIfFailed`. Absent if all users were reached. */
  failure?: ErrorData
}

/** A missing permission, as reported by the platform. */
export interface PermissionViolation {
  type: string
  /** The scope, such as `im:datasync.feed_card.time_sensitive:write`. */
  subject: string
}

/** A client's quota, to be shared. */
export declare class Quota {
  private constructor()
  #native
}

/**
 * The option `rateLimit`.
 *
 * @internal
 */
export interface Rate {
  perSecond: number
  perMinute: number
}

/**
 * An error message.
 *
 * @internal
 */
export interface Refusal {
  refusal: string
}

/** The call's user ids. Each is in exactly one list. */
export interface Users {
  reached: readonly string[]
  /** Refused by the platform, individually or with the whole request. */
  failed: readonly string[]
  /** Sent, but not answered; or the platform reported failures without naming the users. */
  unknown: readonly string[]
  /** Never sent. */
  notAttempted: readonly string[]
}

/**
 * Returns all options except `onEvent`, which only the facade has.
 *
 * @internal
 */
export declare function clientOptions(): Array<OptionData>

/**
 * Creates a client, or returns an error. `provider` is the id of the facade's callbacks if they include a token provider,
 * and `listener` is the same id if they include a listener for events.
 *
 * @internal
 */
export declare function createClient(environment: Environment, options: object, provider?: number | undefined | null, listener?: number | undefined | null): NativeClient | ErrorData

/**
 * Returns a sandbox's default initial state as JSON.
 *
 * @internal
 */
export declare function exampleWorld(): string

/**
 * Returns the message of the error for a value of a wrong type.
 *
 * @internal
 */
export declare function invalidMessage(field: string, value: string, expected: string): string

/**
 * Returns a text in the form in which errors show it.
 *
 * @internal
 */
export declare function shown(text: string): string

/**
 * Starts a sandbox. `world` is its initial state as JSON.
 *
 * @internal
 */
export declare function startSandbox(world: string, port: number, https: boolean, httpsPort: number): NativeSandbox | Refusal

/**
 * Returns the error for an unknown key of one of many requests.
 *
 * @internal
 */
export declare function unknownKey(key: string): ErrorData
