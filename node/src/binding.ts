// Written by scripts/build.mjs from crates/node/src; do not edit.

/**
 * One for each environment of Node, made when the facade is loaded there.
 *
 * @internal
 */
export declare class Environment {
  /** `deliver` is called with messages, a JSON array, and must not throw. */
  constructor(deliver: (arg0: string) => unknown)
  /** Drops a call in flight: its promise is the caller's business from here. */
  abort(id: number): void
  /** A token provider's answer: a token, or why there is none. */
  answerToken(id: number, token?: string | undefined | null, expiresInMs?: number | undefined | null, failure?: string | undefined | null): void
}

/**
 * What went wrong.
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
  /** What it was caused by, outermost first. */
  causes: Array<string>
  /**
   * The question that a token provider did not answer, where that was the cause: the facade keeps
   * what the provider threw.
   */
  question?: number
}

/** To be listed is to have failed: `errorCode` is 0 in the platform's own example. */
export interface FailedUserReason {
  errorCode: number
  /** Such as `The user is not in the chat`. */
  errorMessage: string
  /** Where the app has the field permission, `contact:user.employee_id:readonly` for `user_id`. */
  userId?: string
}

/** A field the platform refused. */
export interface FieldViolation {
  field: string
  /** As text. */
  value: string
  description: string
}

/**
 * How many calls are made.
 *
 * @internal
 */
export interface ManyArguments {
  concurrency?: number
  totalTimeoutMs?: number
  /** How many requests there will be, where that is known. */
  total?: number
  /** The context of the calls, if someone listens or provides tokens. */
  context?: number
  /** The context's listeners are told the calls' events. */
  tellsEvents: boolean
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
   * Begins a call; its end comes to the environment's `deliver`, under this id. No `feedCardId` is the bot's
   * own chat. With `tells`, the id is that of a context as well, whose listeners are told the call's events if it is true.
   */
  start(id: number, userIds: Array<string>, timeSensitive: boolean, feedCardId?: string | undefined | null, userIdType?: string | undefined | null, timeoutMs?: number | undefined | null, tells?: boolean | undefined | null): void
  /** Makes a handle of many calls; nothing is sent until it is asked. */
  many(arguments: ManyArguments): NativeMany | ErrorData
  /** Hands over a store app's new ticket. */
  setAppTicket(appTicket: string): ErrorData | null
  /** The quota, absent without pacing. */
  get quota(): Quota | null
  /**
   * Refuses new calls, and lets go of connections and secrets once no call uses them any more. Calls are stopped after
   * the timeout. The environment's `deliver` gets a message with this id when no call is in progress. Returns an
   * error, and does nothing, if the timeout is wrong.
   */
  close(id: number, timeoutMs?: number | undefined | null): ErrorData | null
}

/**
 * The core's handle. The facade reads requests while there is room.
 *
 * @internal
 */
export declare class NativeMany {
  private constructor()
  #native
  /** Requests that the facade may have read and not got back. */
  readonly concurrency: number
  /** How long the facade reads its source at a stretch, so that neither results nor the event loop wait for it. */
  readonly readsForMs: number
  /**
   * Takes the next requests: a JSON array, with `null` for each element that the facade rejected. Indices count
   * from 0, in the order fed.
   */
  feed(requests: string): void
  /** Takes a request that threw while it was read, with the user ids read before. */
  feedUnreadable(userIds: Array<string>): void
  /** Ends the input. */
  end(): void
  /** Asks for the next results. The environment's `deliver` gets them, under this id. */
  ask(id: number): void
  /** Stops all calls and asks for the report, under this id. */
  report(id: number): void
}

/**
 * A running stand-in.
 *
 * @internal
 */
export declare class NativeSandbox {
  private constructor()
  #native
  /** `http://127.0.0.1:…` */
  readonly baseUrl: string
  /** `https://127.0.0.1:…`, where https was asked for. */
  readonly httpsBaseUrl?: string
  /** The authority to trust for https. */
  readonly caPem?: string
  /** Carries out a control, JSON to JSON. */
  control(control: string): string | Refusal
  /** Stops the server and closes its connections. */
  close(): void
}

/**
 * An option of a client. The facade checks the types of values by it.
 *
 * @internal
 */
export interface OptionData {
  name: string
  kind: 'text' | 'secret' | 'flag' | 'path' | 'milliseconds' | 'count' | 'proxy' | 'rateLimit' | 'quota' | 'tokenProvider'
}

/**
 * What a call that the platform accepted came back with.
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
  /** What `throwIfFailed` throws; absent where every user was reached. */
  failure?: ErrorData
}

/** A permission the platform says is missing. */
export interface PermissionViolation {
  type: string
  /** The scope, such as `im:datasync.feed_card.time_sensitive:write`. */
  subject: string
}

/** A client's. */
export declare class Quota {
  private constructor()
  #native
}

/**
 * How many calls to make at most.
 *
 * @internal
 */
export interface Rate {
  perSecond: number
  perMinute: number
}

/**
 * What went wrong, as a sentence.
 *
 * @internal
 */
export interface Refusal {
  refusal: string
}

/** Every user id handed in, each in exactly one list, in the order given. */
export interface Users {
  reached: readonly string[]
  /** The platform said no, for them alone or for the whole request. */
  failed: readonly string[]
  /** No answer came, or the platform counted failures without naming them. */
  unknown: readonly string[]
  /** Never sent. */
  notAttempted: readonly string[]
}

/**
 * The error of a closed client.
 *
 * @internal
 */
export declare function clientClosed(): ErrorData

/**
 * All options but `onEvent`, which only the facade knows.
 *
 * @internal
 */
export declare function clientOptions(): Array<OptionData>

/**
 * Makes a client, or says which option is wrong, or what the system refuses. With `asks` its tokens come from the facade, which is
 * asked under this id; with `tells` the facade is told its events.
 *
 * @internal
 */
export declare function createClient(environment: Environment, options: object, asks?: number | undefined | null, tells?: number | undefined | null): NativeClient | ErrorData

/**
 * The world a sandbox starts from unless told otherwise, as JSON.
 *
 * @internal
 */
export declare function exampleWorld(): string

/**
 * What the error says for what the facade found to be of a wrong type.
 *
 * @internal
 */
export declare function invalidMessage(field: string, value: string, expected: string): string

/**
 * A text as an error shows it.
 *
 * @internal
 */
export declare function shown(text: string): string

/**
 * Starts a sandbox from a world given as JSON.
 *
 * @internal
 */
export declare function startSandbox(world: string, port: number, https: boolean, httpsPort: number): NativeSandbox | Refusal

/**
 * The error for an unknown key of one of many requests.
 *
 * @internal
 */
export declare function unknownKey(key: string): ErrorData
