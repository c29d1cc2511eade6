import type { ErrorData, FailedUserReason, OutcomeData, Users } from './binding.js'
import { errorOf } from './errors.js'

/**
 * What a call that the platform accepted came back with. Users may still have failed one by one.
 *
 * @example
 * ```ts
 * const outcome = await client.setTimeSensitive({ feedCardId, userIds, timeSensitive: true })
 * for (const { userId, errorMessage } of outcome.failedUserReasons) console.warn(userId, errorMessage)
 * ```
 */
export class Outcome {
  /** Whether every user was reached. */
  readonly ok: boolean
  /** The users not reached. */
  readonly failedUserReasons: readonly FailedUserReason[]
  /** The first of `logIds`. */
  readonly logId: string | undefined
  /** One for each answered request; the platform's support asks for them. */
  readonly logIds: readonly string[]
  /** How many were sent, replays included. */
  readonly requests: number
  readonly #failure: ErrorData | undefined

  /** @internal */
  constructor(data: OutcomeData) {
    this.ok = data.ok
    this.failedUserReasons = data.failedUserReasons
    this.logId = data.logIds[0]
    this.logIds = data.logIds
    this.requests = data.requests
    Object.assign(this, data.users)
    this.#failure = data.failure
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
}

export interface Outcome extends Readonly<Users> {}
