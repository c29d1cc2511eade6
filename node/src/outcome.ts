import type { ErrorData, FailedUserReason, OutcomeData, Users } from './binding.js'
import { errorOf } from './errors.js'

/**
 * What a call that the platform accepted came back with. Users may still have failed one by one: see `ok`
 * and `throwIfFailed`.
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
  /** The users not reached, in the platform's words. */
  readonly failedUserReasons: readonly FailedUserReason[]
  /** The first request's log id; the platform's support asks for it. */
  readonly logId: string | undefined
  /** The log ids, one for each answered request, in the order of the user ids. */
  readonly logIds: readonly string[]
  /** How many HTTP requests were sent for this call, replays included. */
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

  /** Throws a {@link PartialFailureError} unless every user was reached. */
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
