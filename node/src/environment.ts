// Calls in flight in this environment of Node (the main thread, or a worker thread).

import type { Arguments, Message, NativeClient } from './binding.js'
import { native } from './load.js'
import { kindOf } from './checks.js'

export type ProvidedToken = string | { readonly token: string; readonly expiresInMs?: number }

/** Supplies `tenant_access_token`s from elsewhere. */
export type TokenProvider = () => ProvidedToken | PromiseLike<ProvidedToken>

/**
 * A client's token provider, and what it threw last.
 *
 * @internal
 */
export class Provider {
  readonly id = ++lastId
  failure: { readonly question: number; readonly thrown: unknown } | undefined

  constructor(readonly provide: TokenProvider) {
    providers.set(this.id, new WeakRef(this))
    forgotten.register(this, this.id)
  }
}

let lastId = 0
const waiting = new Map<number, (message: Message) => void>()
// Weak: a provider that holds its client would keep it for ever.
const providers = new Map<number, WeakRef<Provider>>()
const forgotten = new FinalizationRegistry<number>((id) => providers.delete(id))
/** @internal */
export const environment = new native.Environment(deliver)

/**
 * Makes a call and waits for its end. Rejects only with the signal's reason.
 *
 * @internal
 */
export function send(
  client: NativeClient,
  call: Arguments,
  signal: AbortSignal | undefined,
): Promise<Message> {
  return new Promise((resolve, reject) => {
    const id = ++lastId
    client.start(environment, id, call)
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

/** Called from the event loop with all ends that are ready; what it throws would end the process. */
function deliver(messages: Message[]): void {
  for (const message of messages) {
    const { id, tokenWantedBy } = message
    if (tokenWantedBy === undefined) {
      waiting.get(id)?.(message)
      waiting.delete(id)
    } else {
      void answer(id, providers.get(tokenWantedBy)?.deref())
    }
  }
}

async function answer(question: number, provider: Provider | undefined): Promise<void> {
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
