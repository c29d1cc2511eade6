import * as check from './checks.js'
import type { ClientEvent, OnEvent } from './environment.js'
import { InvalidInputError, errorOf } from './errors.js'
import { native } from './load.js'

export type UserIdType = 'open_id' | 'union_id' | 'user_id'

export interface CallOptions {
  /** Default: `open_id`. */
  userIdType?: UserIdType | undefined
  /** Stops the call. Its promise rejects with the signal's reason. */
  signal?: AbortSignal | undefined
  /** Default: the client's. */
  timeoutMs?: number | undefined
  /** Receives this call's events, after the client's `onEvent`. */
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
 * Keys of one of many requests. It has a tag, but no signal and no listener.
 *
 * @internal
 */
export const requestNames: readonly Name[] = [
  'tag',
  ...groupCallNames.filter((name) => name !== 'signal' && name !== 'onEvent'),
]

/** @internal */
export interface Checked {
  /** Undefined for the bot's own chat. */
  feedCardId: string | undefined
  userIds: string[]
  timeSensitive: boolean
  userIdType: string | undefined
  timeoutMs: number | undefined
  signal: AbortSignal | undefined
  onEvent: OnEvent | undefined
}

/**
 * Checks the types of a call's arguments. The core checks the values. The ids are added to `userIds` one by one, so that
 * they are available if the caller's code throws.
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
      const ids = idsIn(given)
      Object.assign(error, ids.length > 0 && { notAttempted: ids })
    }
    throw error
  }
}

function checked(what: string, given: unknown, names: readonly Name[], userIds: string[]): Checked {
  const unknown = names === requestNames ? unknownKey : undefined
  const fields = check.fields(what, given, names, unknown)
  const { feedCardId, timeSensitive, userIdType, signal, timeoutMs, onEvent } = fields
  check.strings('userIds', fields.userIds, 'an array of user ids', userIds)
  // All properties are own ones, so that a missing one is not read from a polluted `Object.prototype`.
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

/** Returns the ids in a call's `userIds`, also if it is a single string or contains other values. */
function idsIn(given: unknown): string[] {
  const isOwn = typeof given === 'object' && given !== null && Object.hasOwn(given, 'userIds')
  const userIds: unknown = isOwn ? (given as SetTimeSensitive).userIds : undefined
  const ids = Array.isArray(userIds) || userIds instanceof Set ? [...userIds] : [userIds]
  return [...new Set(ids.filter((id) => typeof id === 'string'))]
}
