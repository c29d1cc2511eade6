// Calls in flight in this environment of Node (the main thread, or a worker thread).

import { AsyncResource } from 'node:async_hooks'
import type { NativeClient } from './binding.js'
import type { Checked } from './call.js'
import { native } from './load.js'
import { fields, kindOf } from './checks.js'
import type { Answer } from './outcome.js'

export type ProvidedToken = string | { token: string; expiresInMs?: number }

/** Why a token is needed. */
export interface TokenReason {
  /** The platform refused it: return another one. Absent for the first token and for a renewal. */
  refusedToken?: string
}

/** Supplies `tenant_access_token`s from elsewhere. */
export type TokenProvider = (reason: TokenReason) => ProvidedToken | PromiseLike<ProvidedToken>

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

/** @internal */
export type OnEvent = (event: ClientEvent) => void

/** What is called from the event loop: a client's callbacks, or a call's. */
interface Listener {
  readonly client: Callbacks | undefined
  tell(event: ClientEvent): void
  run<T>(callback: () => T): T
}

/**
 * A client's. Outside of calls they run in no async context.
 *
 * @internal
 */
export class Callbacks implements Listener {
  readonly id = ++lastId
  /** What the token provider threw last. */
  failure: { readonly question: number; readonly thrown: unknown } | undefined

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

  tell(event: ClientEvent): void {
    tell(this.onEvent, event)
  }

  run<T>(callback: () => T): T {
    return callback()
  }
}

/**
 * The async context that a call, or many, was made in, with the call's own listener.
 *
 * @internal
 */
export class CallContext implements Listener {
  readonly id = ++lastId
  readonly #resource = new AsyncResource('FeishuFeedCardCall')

  /** None if nobody listens and nobody provides tokens. */
  static of(client: Callbacks | undefined, onEvent: OnEvent | undefined): CallContext | undefined {
    return client || onEvent ? new CallContext(client, onEvent) : undefined
  }

  private constructor(
    readonly client: Callbacks | undefined,
    readonly onEvent: OnEvent | undefined,
  ) {}

  /** Whether anyone wants events. */
  get tells(): boolean {
    return Boolean(this.client?.onEvent ?? this.onEvent)
  }

  /** Until the native module says that the context is over, also after the end of the call; `weak` for what may be dropped. */
  listen(weak = false): void {
    listeners.set(this.id, weak ? new WeakRef<Listener>(this) : { deref: () => this })
  }

  tell(event: ClientEvent): void {
    this.run(() => {
      this.client?.tell(event)
      tell(this.onEvent, event)
    })
  }

  run<T>(callback: () => T): T {
    return this.#resource.runInAsyncScope(callback)
  }
}

/**
 * What the native module tells: a call's end, what many calls were asked for, a question of a token provider's
 * client, an event.
 *
 * @internal
 */
export interface Message extends Answer {
  /** Of the call, of the question, or of the context or client whose event it is. */
  id: number
  /** The context or client whose token provider is asked; the answer goes to `Environment.answerToken`. */
  tokenWantedBy?: number
  refusedToken?: string
  /** Nothing more comes from this context. */
  over?: true
  many?: unknown
  event?: ClientEvent
  /** A bug of this package ended the call: what the panic said. */
  panic?: string
}

let lastId = 0
const waiting = new Map<number, (message: Message) => void>()
// Weak: a callback that holds its client would keep it for ever.
const listeners = new Map<number, { deref(): Listener | undefined }>()
const forgotten = new FinalizationRegistry<number>((id) => listeners.delete(id))
/** @internal */
export const environment = new native.Environment(deliver)

/**
 * Makes a call and waits for its end. Rejects only with the signal's reason.
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
    client.start(id, userIds, timeSensitive, feedCardId, userIdType, timeoutMs, context?.tells)
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
    const { id, tokenWantedBy, refusedToken, event, over } = message
    if (event !== undefined) {
      listeners.get(id)?.deref()?.tell(event)
    } else if (over) {
      listeners.delete(id)
    } else if (tokenWantedBy === undefined) {
      waiting.get(id)?.(message)
      waiting.delete(id)
    } else {
      void answer(
        id,
        listeners.get(tokenWantedBy)?.deref(),
        refusedToken === undefined ? {} : { refusedToken },
      )
    }
  }
}

function tell(onEvent: OnEvent | undefined, event: ClientEvent): void {
  try {
    onEvent?.(event)
  } catch (thrown) {
    // No call of its own to fail: an uncaught exception, as what an event listener throws is.
    process.nextTick(() => {
      throw thrown
    })
  }
}

async function answer(question: number, listener: Listener | undefined, reason: TokenReason): Promise<void> {
  const provider = listener?.client
  try {
    const provide = provider?.provide
    const provided: unknown = await listener?.run(() => provide?.(reason))
    const { token, expiresInMs } = typeof provided === 'object' ? answerIn(provided) : { token: provided }
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

/** The parts of what a token provider returned. */
function answerIn(provided: object | null): { token?: unknown; expiresInMs?: unknown } {
  return provided === null || Array.isArray(provided)
    ? { token: undefined }
    : fields('what it returned', provided, ['token', 'expiresInMs'])
}

function said(thrown: unknown): string {
  try {
    return String(thrown instanceof Error ? thrown.message || thrown.name : thrown).toWellFormed()
  } catch {
    return kindOf(thrown)
  }
}
