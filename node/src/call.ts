import * as check from './checks.js'
import type { ClientEvent, OnEvent } from './environment.js'
import { InvalidInputError, errorOf } from './errors.js'
import { native } from './load.js'

export type UserIdType = 'open_id' | 'union_id' | 'user_id'

export interface CallOptions {
  /** Default: `open_id`. */
  userIdType?: UserIdType | undefined
  /** Stops the call: its promise rejects with the signal's reason. */
  signal?: AbortSignal | undefined
  /** Default: the client's. */
  timeoutMs?: number | undefined
  /** Gets this call's events, beside the client's own. */
  onEvent?: ((event: ClientEvent) => void) | undefined
}

/** A call for the bot's own chat. */
export interface SetBotTimeSensitive extends CallOptions {
  /** Repeated ids are sent once. */
  userIds: readonly string[]
  /** `true` pins, `false` unpins. */
  timeSensitive: boolean
}

/** A call for a group chat. */
export interface SetTimeSensitive extends SetBotTimeSensitive {
  /** `oc_…` */
  feedCardId: string
}

type CallName = keyof SetTimeSensitive
type Name = CallName | 'tag'

/** @internal */
export const botCallNames: readonly CallName[] = [
  'userIds',
  'timeSensitive',
  'userIdType',
  'signal',
  'timeoutMs',
  'onEvent',
]
/** @internal */
export const groupCallNames: readonly CallName[] = ['feedCardId', ...botCallNames]
/**
 * One of many has no signal and no listener of its own, but a tag.
 *
 * @internal
 */
export const requestNames: readonly Name[] = [
  'tag',
  ...groupCallNames.filter((name) => name !== 'signal' && name !== 'onEvent'),
]

/** @internal */
export interface Checked {
  /** None for the bot's own chat. */
  feedCardId: string | undefined
  userIds: string[]
  timeSensitive: boolean
  userIdType: string | undefined
  timeoutMs: number | undefined
  signal: AbortSignal | undefined
  onEvent: OnEvent | undefined
}

/**
 * The types of what was handed in; values are the core's to check. The ids are put into `userIds` as they are
 * read, and stay there when the caller's own code throws.
 *
 * @internal
 */
export function checkCall(
  what: string,
  given: unknown,
  names: readonly Name[],
  userIds: string[] = [],
): Checked {
  try {
    return checked(what, given, names, userIds)
  } catch (error) {
    if (error instanceof InvalidInputError) {
      const handedIn = idsIn(given)
      Object.assign(error, handedIn.length > 0 && { notAttempted: handedIn })
    }
    throw error
  }
}

function checked(what: string, given: unknown, names: readonly Name[], userIds: string[]): Checked {
  const unknown = names === requestNames ? unknownKey : undefined
  const fields = check.fields(what, given, names, unknown)
  const { feedCardId, timeSensitive, userIdType, signal, timeoutMs, onEvent } = fields
  check.strings('userIds', fields.userIds, 'an array of user ids', userIds)
  // Each is the call's own, so that what is absent is not found in a polluted prototype.
  const call: Checked = {
    feedCardId: undefined,
    userIds,
    timeSensitive: check.boolean('timeSensitive', timeSensitive),
    userIdType: undefined,
    timeoutMs: undefined,
    signal: undefined,
    onEvent: undefined,
  }
  if (names !== botCallNames) {
    call.feedCardId = check.string('feedCardId', feedCardId, "a group chat's id, `oc_…`")
  }
  if (userIdType !== undefined) {
    call.userIdType = check.string('userIdType', userIdType, '`open_id`, `union_id` or `user_id`')
  }
  if (timeoutMs !== undefined) {
    call.timeoutMs = check.number('timeoutMs', timeoutMs, 'a number of milliseconds')
  }
  if (signal !== undefined) {
    call.signal = check.signal(signal)
  }
  if (onEvent !== undefined) {
    call.onEvent = check.callback('onEvent', onEvent) as OnEvent
  }
  return call
}

const unknownKey = (name: string) => errorOf(native.unknownKey(name))

/** The ids among what was handed in as such: also one by itself, and beside what is none. */
function idsIn(given: unknown): string[] {
  const isOwn = typeof given === 'object' && given !== null && Object.hasOwn(given, 'userIds')
  const userIds: unknown = isOwn ? (given as SetTimeSensitive).userIds : undefined
  const ids = Array.isArray(userIds) || userIds instanceof Set ? [...userIds] : [userIds]
  return [...new Set(ids.filter((id) => typeof id === 'string'))]
}
