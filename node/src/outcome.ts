import type { ErrorData, FailedUserReason, OutcomeData, Users } from './binding.js'
import { errorOf, nothing } from './errors.js'

/** Key of the private constructor. Only this module has it. */
const ours = Symbol('outcome')
let outcomeFrom: (data: OutcomeData) => Outcome

/**
 * The result of a call. It may include users that were not reached.
 *
 * @example
 * ```ts
 * const outcome = await client.setTimeSensitive({ feedCardId, userIds, timeSensitive: true })
 * for (const { userId, errorMessage } of outcome.failedUserReasons) console.warn(userId, errorMessage)
 * ```
 */
export class Outcome {
  /** Whether all users were reached. */
  readonly ok: boolean
  /** The users that were not reached. */
  readonly failedUserReasons: readonly FailedUserReason[]
  /** The first of `logIds`. */
  readonly logId: string | undefined
  /** One for each answered request, for the platform's support. */
  readonly logIds: readonly string[]
  /** Number of HTTP requests sent, including retries. */
  readonly requests: number
  /** The call's number, as in its events. */
  readonly call: number | undefined
  readonly #failure: ErrorData | undefined

  private constructor(data: OutcomeData, key: symbol) {
    if (key !== ours) {
      throw new TypeError('Outcome has no public constructor; calls return outcomes')
    }
    this.ok = data.ok
    this.failedUserReasons = data.failedUserReasons
    this.logId = data.logIds[0]
    this.logIds = data.logIds
    this.requests = data.requests
    this.call = data.call
    setUsers(this, data.users)
    this.#failure = data.failure
  }

  /** Plain data without undefined fields. */
  toJSON(): object {
    return JSON.parse(JSON.stringify({ ...this })) as object
  }

  /** Throws a {@link PartialFailureError} unless `ok`. */
  throwIfFailed(): this {
    if (this.#failure === undefined) {
      return this
    }
    const error = errorOf(this.#failure, { outcome: this })
    Error.captureStackTrace(error, this.throwIfFailed)
    throw error
  }

  static {
    outcomeFrom = (data) => new this(data, ours)
  }
}

export interface Outcome extends Readonly<Users> {}

/** Sets the fields one by one, because `Object.assign` takes several times as long. */
function setUsers(outcome: Users, users: Users): void {
  outcome.reached = users.reached
  outcome.failed = users.failed
  outcome.unknown = users.unknown
  outcome.notAttempted = users.notAttempted
}

/**
 * The result of a call, from the native module.
 *
 * @internal
 */
export interface CallResult {
  /** Set with `logIds`, in place of `outcome`, if all users were reached and no id was repeated. */
  requests?: number
  logIds?: string[]
  call?: number
  outcome?: OutcomeData
  error?: ErrorData
}

/**
 * @internal
 * @param userIds A copy of the call's user ids.
 */
export function outcomeOf(
  { requests, logIds, call, outcome }: CallResult,
  userIds: string[],
): Outcome | undefined {
  if (requests === undefined || logIds === undefined) {
    return outcome && outcomeFrom(outcome)
  }
  const users = { reached: userIds, failed: nothing, unknown: nothing, notAttempted: nothing }
  return outcomeFrom({
    ok: true,
    failedUserReasons: nothing,
    logIds,
    requests,
    users,
    ...(call !== undefined && { call }),
  })
}
