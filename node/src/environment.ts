// The calls in progress in this environment of Node (the main thread, or a worker thread).

import { AsyncResource } from 'node:async_hooks'
import type { NativeClient } from './binding.js'
import type { Checked } from './call.js'
import { native } from './load.js'
import { fields, kindOf } from './checks.js'
import type { CallResult } from './outcome.js'

export type ProvidedToken = string | { token: string; expiresInMs?: number }

/** Why a token is needed. */
export interface TokenReason {
  /** The token that the platform refused: return another one. Absent for the first token and a renewal. */
  refusedToken?: string
}

/** Supplies `tenant_access_token`s. */
export type TokenProvider = (reason: TokenReason) => ProvidedToken | PromiseLike<ProvidedToken>

/**
 * An event, with the known facts: `call` (its number), `feedCardId`, `users` (their number), `attempt`, `code`,
 * `status`, `logId`, `waitMs`…
 */
export interface ClientEvent {
  /** `call`, `attempt` or `token_fetch` at the end of one; otherwise a short text. */
  name: string
  level: 'error' | 'warn' | 'info' | 'debug' | 'trace'
  durationMs?: number
  [fact: string]: string | number | boolean | undefined
}

/** @internal */
export type OnEvent = (event: ClientEvent) => void

/** The callbacks of a client or of a call. */
interface Listener {
  readonly client: Callbacks | undefined
  emit(event: ClientEvent): void
  run<T>(callback: () => T): T
}

/**
 * The callbacks of a client. Outside of calls they run without an async context.
 *
 * @internal
 */
export class Callbacks implements Listener {
  readonly id = ++lastId
  /** The last exception of the token provider. */
  failure: { readonly providerCall: number; readonly thrown: unknown } | undefined

  constructor(
    readonly provide: TokenProvider | undefined,
    readonly onEvent: OnEvent | undefined,
  ) {
    listeners.set(this.id, new WeakRef(this))
    forgotten.register(this, this.id)
  }

  get client(): this {
    return this
  }

  emit(event: ClientEvent): void {
    callOnEvent(this.onEvent, event)
  }

  run<T>(callback: () => T): T {
    return callback()
  }
}

/**
 * The async context in which a call, or many calls, were made, with the call's own listener.
 *
 * @internal
 */
export class CallContext implements Listener {
  readonly id = ++lastId
  readonly #resource = new AsyncResource('FeishuFeedCardCall')

  /** Returns `undefined` if there is neither a listener nor a token provider. */
  static of(client: Callbacks | undefined, onEvent: OnEvent | undefined): CallContext | undefined {
    return client || onEvent ? new CallContext(client, onEvent) : undefined
  }

  private constructor(
    readonly client: Callbacks | undefined,
    readonly onEvent: OnEvent | undefined,
  ) {}

  /** Whether there is a listener for events. */
  get wantsEvents(): boolean {
    return Boolean(this.client?.onEvent ?? this.onEvent)
  }

  /**
   * Registers this context until the native module reports it as over, which may be after the end of the call. With
   * `weak`, the context may be collected before.
   */
  listen(weak = false): void {
    listeners.set(this.id, weak ? new WeakRef<Listener>(this) : { deref: () => this })
  }

  emit(event: ClientEvent): void {
    this.run(() => {
      this.client?.emit(event)
      callOnEvent(this.onEvent, event)
    })
  }

  run<T>(callback: () => T): T {
    return this.#resource.runInAsyncScope(callback)
  }
}

/**
 * A message of the native module: the result of a call, results or the report of many calls, a call of a token provider,
 * or an event.
 *
 * @internal
 */
export interface Message extends CallResult {
  /** The id of the call or provider call. For an event, the id of its context or client. */
  id: number
  /** The context or client whose token provider to call. Its result goes to `Environment.provideToken`. */
  tokenWantedBy?: number
  refusedToken?: string
  /** No more messages will come for this context. */
  over?: true
  many?: unknown
  event?: ClientEvent
  /** The message of a panic that ended the call, which is a bug of this package. */
  panic?: string
}

let lastId = 0
const waiting = new Map<number, (message: Message) => void>()
// Weak references, because a callback that refers to its client would keep the client forever.
const listeners = new Map<number, { deref(): Listener | undefined }>()
const forgotten = new FinalizationRegistry<number>((id) => listeners.delete(id))
/** @internal */
export const environment = new native.Environment(deliver)

/**
 * Makes a call and waits for its result. Rejects only with the signal's reason.
 *
 * @internal
 */
export function send(
  client: NativeClient,
  call: Checked,
  context: CallContext | undefined,
): Promise<Message> {
  return new Promise((resolve, reject) => {
    const id = context?.id ?? ++lastId
    const { feedCardId, userIds, timeSensitive, userIdType, timeoutMs, signal } = call
    client.start(id, userIds, timeSensitive, feedCardId, userIdType, timeoutMs, context?.wantsEvents)
    context?.listen()
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
 * Starts an operation of the native module under a new id, and waits for its message.
 *
 * @internal
 */
export function messageFor(begin: (id: number) => void): Promise<Message> {
  return new Promise((resolve) => {
    const id = ++lastId
    begin(id)
    waiting.set(id, resolve)
  })
}

/**
 * Returns the error for a panic of the native module.
 *
 * @internal
 */
export const bugOf = (panic = 'no reason') =>
  new Error(`feishu-feed-card: this is a bug, please report it: ${panic}`)

/** The calls that a signal stops, and its only listener, because Node warns of a leak at the eleventh. */
const stoppable = new WeakMap<AbortSignal, { stops: Set<() => void>; listener: () => void }>()

/**
 * Calls `stop` when the signal is aborted. Returns a function that cancels this.
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
 * Returns a signal's reason, or its default, as for `fetch`.
 *
 * @internal
 */
export function reasonOf(signal: AbortSignal): unknown {
  return signal.reason ?? new DOMException('This operation was aborted', 'AbortError')
}

/** Called from the event loop with all available messages. Must not throw: an exception would end the process. */
function deliver(messages: string): void {
  for (const message of JSON.parse(messages) as Message[]) {
    const { id, tokenWantedBy, refusedToken, event, over } = message
    if (event !== undefined) {
      listeners.get(id)?.deref()?.emit(event)
    } else if (over) {
      listeners.delete(id)
    } else if (tokenWantedBy === undefined) {
      waiting.get(id)?.(message)
      waiting.delete(id)
    } else {
      void callProvider(
        id,
        listeners.get(tokenWantedBy)?.deref(),
        refusedToken === undefined ? {} : { refusedToken },
      )
    }
  }
}

function callOnEvent(onEvent: OnEvent | undefined, event: ClientEvent): void {
  try {
    onEvent?.(event)
  } catch (thrown) {
    // Make it an uncaught exception, like one of an event listener.
    process.nextTick(() => {
      throw thrown
    })
  }
}

async function callProvider(id: number, listener: Listener | undefined, reason: TokenReason): Promise<void> {
  const provider = listener?.client
  try {
    const provide = provider?.provide
    const provided: unknown = await listener?.run(() => provide?.(reason))
    const { token, expiresInMs } = typeof provided === 'object' ? partsOf(provided) : { token: provided }
    if (typeof token !== 'string' || !token.isWellFormed()) {
      throw new TypeError(`it returned ${kindOf(provided)}; expected a token, or { token, expiresInMs }`)
    }
    if (
      expiresInMs !== undefined &&
      !(typeof expiresInMs === 'number' && expiresInMs > 0 && Number.isFinite(expiresInMs))
    ) {
      throw new TypeError(`its expiresInMs is ${kindOf(expiresInMs)}; expected a positive, finite number`)
    }
    environment.provideToken(id, token, expiresInMs)
  } catch (thrown) {
    if (provider !== undefined) {
      provider.failure = { providerCall: id, thrown }
    }
    environment.provideToken(id, undefined, undefined, messageOf(thrown))
  }
}

/** Returns the parts of an object that a token provider returned. */
function partsOf(provided: object | null): { token?: unknown; expiresInMs?: unknown } {
  return provided === null || Array.isArray(provided)
    ? { token: undefined }
    : fields('the returned object', provided, ['token', 'expiresInMs'])
}

function messageOf(thrown: unknown): string {
  try {
    return String(thrown instanceof Error ? thrown.message || thrown.name : thrown).toWellFormed()
  } catch {
    return kindOf(thrown)
  }
}
