// Calls in flight in this environment of Node (the main thread, or a worker thread).

import type { NativeClient } from './binding.js'
import type { Checked } from './call.js'
import { native } from './load.js'
import { kindOf } from './checks.js'
import type { Answer } from './outcome.js'

export type ProvidedToken = string | { token: string; expiresInMs?: number }

/** Supplies `tenant_access_token`s from elsewhere. */
export type TokenProvider = () => ProvidedToken | PromiseLike<ProvidedToken>

/**
 * With what is known: `call` (its number), `feedCardId`, `users` (how many), `attempt`, `code`, `status`,
 * `logId`, `waitMs`…
 */
export interface ClientEvent {
  /** `call`, `attempt` and `token_fetch`, at their ends; else a few words. */
  name: string
  level: 'error' | 'warn' | 'info' | 'debug' | 'trace'
  durationMs?: number
  [fact: string]: string | number | boolean | undefined
}

/**
 * What of a client's is called from the event loop.
 *
 * @internal
 */
export class Callbacks {
  readonly id = ++lastId
  /** What the token provider threw last. */
  failure: { readonly question: number; readonly thrown: unknown } | undefined

  constructor(
    readonly provide: TokenProvider | undefined,
    readonly onEvent: ((event: ClientEvent) => void) | undefined,
  ) {
    callbacks.set(this.id, new WeakRef(this))
    forgotten.register(this, this.id)
  }
}

/**
 * What the native module tells: a call's end, what many calls were asked for, a question of a token provider's
 * client, an event.
 *
 * @internal
 */
export interface Message extends Answer {
  /** Of the call, of the question, or of the client whose event it is. */
  id: number
  /** Whose token provider is asked; the answer goes to `Environment.answerToken`. */
  tokenWantedBy?: number
  many?: unknown
  event?: ClientEvent
  /** A bug of this package ended the call: what the panic said. */
  panic?: string
}

let lastId = 0
const waiting = new Map<number, (message: Message) => void>()
// Weak: a callback that holds its client would keep it for ever.
const callbacks = new Map<number, WeakRef<Callbacks>>()
const forgotten = new FinalizationRegistry<number>((id) => callbacks.delete(id))
/** @internal */
export const environment = new native.Environment(deliver)

/**
 * Makes a call and waits for its end. Rejects only with the signal's reason.
 *
 * @internal
 */
export function send(client: NativeClient, call: Checked): Promise<Message> {
  return new Promise((resolve, reject) => {
    const id = ++lastId
    const { feedCardId, userIds, timeSensitive, userIdType, timeoutMs, signal } = call
    client.start(id, userIds, timeSensitive, feedCardId, userIdType, timeoutMs)
    if (signal === undefined) {
      waiting.set(id, resolve)
      return
    }
    const forget = onAbort(signal, () => {
      waiting.delete(id)
      environment.abort(id)
      reject(reasonOf(signal))
    })
    waiting.set(id, (message) => {
      forget()
      resolve(message)
    })
  })
}

/**
 * Asks something of which the answer comes to `deliver`.
 *
 * @internal
 */
export function ask(begin: (id: number) => void): Promise<Message> {
  return new Promise((resolve) => {
    const id = ++lastId
    begin(id)
    waiting.set(id, resolve)
  })
}

/**
 * The error for a panic of the native module.
 *
 * @internal
 */
export const bugOf = (panic = 'no reason') =>
  new Error(`feishu-feed-card: this is a bug, please report it: ${panic}`)

/** The calls that a signal stops, and its one listener: at the eleventh Node would warn of a leak. */
const stoppable = new WeakMap<AbortSignal, { stops: Set<() => void>; listener: () => void }>()

/**
 * Calls `stop` when the signal is aborted; returns what makes it forget that.
 *
 * @internal
 */
export function onAbort(signal: AbortSignal, stop: () => void): () => void {
  const known = stoppable.get(signal)
  const stops = known?.stops ?? new Set()
  const listener =
    known?.listener ??
    (() => {
      stoppable.delete(signal)
      stops.forEach((each) => each())
    })
  if (known === undefined) {
    stoppable.set(signal, { stops, listener })
    signal.addEventListener('abort', listener, { once: true })
  }
  stops.add(stop)
  return () => {
    stops.delete(stop)
    if (stops.size === 0) {
      stoppable.delete(signal)
      signal.removeEventListener('abort', listener)
    }
  }
}

/**
 * What fetch rejects with.
 *
 * @internal
 */
export function reasonOf(signal: AbortSignal): unknown {
  return signal.reason ?? new DOMException('This operation was aborted', 'AbortError')
}

/** Called from the event loop with all that is ready; what it throws would end the process. */
function deliver(messages: string): void {
  for (const message of JSON.parse(messages) as Message[]) {
    const { id, tokenWantedBy, event } = message
    if (event !== undefined) {
      tell(event, callbacks.get(id)?.deref())
    } else if (tokenWantedBy === undefined) {
      waiting.get(id)?.(message)
      waiting.delete(id)
    } else {
      void answer(id, callbacks.get(tokenWantedBy)?.deref())
    }
  }
}

function tell(event: ClientEvent, client: Callbacks | undefined): void {
  const onEvent = client?.onEvent
  try {
    onEvent?.(event)
  } catch (thrown) {
    // No call of its own to fail: an uncaught exception, as what an event listener throws is.
    process.nextTick(() => {
      throw thrown
    })
  }
}

async function answer(question: number, provider: Callbacks | undefined): Promise<void> {
  try {
    const provide = provider?.provide
    const provided: unknown = await provide?.()
    const { token, expiresInMs } = (
      typeof provided === 'string' ? { token: provided } : (provided ?? {})
    ) as Record<string, unknown>
    if (typeof token !== 'string' || !token.isWellFormed()) {
      throw new TypeError(`it returned ${kindOf(provided)}; expected a token, or { token, expiresInMs }`)
    }
    if (
      expiresInMs !== undefined &&
      !(typeof expiresInMs === 'number' && expiresInMs > 0 && Number.isFinite(expiresInMs))
    ) {
      throw new TypeError(`its expiresInMs is ${kindOf(expiresInMs)}; expected a positive, finite number`)
    }
    environment.answerToken(question, token, expiresInMs)
  } catch (thrown) {
    if (provider !== undefined) {
      provider.failure = { question, thrown }
    }
    environment.answerToken(question, undefined, undefined, said(thrown))
  }
}

function said(thrown: unknown): string {
  try {
    return String(thrown instanceof Error ? thrown.message || thrown.name : thrown).toWellFormed()
  } catch {
    return kindOf(thrown)
  }
}
