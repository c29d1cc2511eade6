import type { ErrorData, NativeMany, Users } from './binding.js'
import { type SetTimeSensitive, checkCall, requestNames } from './call.js'
import * as check from './checks.js'
import {
  type CallContext,
  type ClientEvent,
  type Message,
  type OnEvent,
  bugOf,
  messageFor,
  onAbort,
  reasonOf,
} from './environment.js'
import { type FeedCardError, InvalidInputError, invalidInput, withJSON } from './errors.js'
import { type CallResult, type Outcome, outcomeOf } from './outcome.js'
import { Source } from './source.js'

export interface ManyRequest extends Omit<SetTimeSensitive, 'signal' | 'onEvent'> {
  /** Any value. Not sent, but returned with the result. */
  tag?: unknown
}

/** Rejects keys that `ManyRequest` does not have, as the client does at run time. */
export type Exactly<R> = R & { [Key in Exclude<keyof R, keyof ManyRequest>]: never }

/** The result of one request. */
export type ManyItem<R extends ManyRequest = ManyRequest> = {
  /** From 0. */
  index: number
  /** The same object that was in `requests`. */
  request: R
  tag: R['tag']
  /** Plain data. */
  toJSON(): object
} & ({ outcome: Outcome; error?: undefined } | { outcome?: undefined; error: FeedCardError })

export interface ManyOptions {
  /** Maximum number of requests in progress or waiting for the quota. Default: 100. */
  concurrency?: number | undefined
  /** Called when results come in, and every 2 s in between. An exception it throws stops the calls. */
  progress?: ((progress: Progress) => void) | undefined
  /**
   * Deadline of all requests together. Default: none. After it no more requests are read, and unfinished ones fail. If
   * some were not read, the loop throws a {@link DeadlineExceededError} at its end.
   */
  totalTimeoutMs?: number | undefined
  /** Stops all calls. The loop throws the signal's reason. */
  signal?: AbortSignal | undefined
  /** Receives the events of all calls, after the client's `onEvent`. */
  onEvent?: ((event: ClientEvent) => void) | undefined
}

export interface Progress {
  /** Finished requests, including failed ones. */
  done: number
  /** Only of an array or a `Set`. */
  total?: number
  /** With an error, or with users not reached. */
  failed: number
  waitingForQuota: number
  /** Shortest time that the quota allows for the remaining requests, if `total` is known. */
  etaMs?: number
}

/** `taken` is the sum of `succeeded`, `failed` and `unfinished.length`. */
export interface Report<R extends ManyRequest = ManyRequest> {
  /** Requests read. */
  taken: number
  succeeded: number
  /** With an error, or with users not reached. */
  failed: number
  /** Requests not read. Absent if the number is unknown. */
  notRead?: number
  /** Failed items by index. At most the first 10,000 that finished. */
  failures: readonly ManyItem<R>[]
  /** Items that the loop did not take. They are counted above. */
  unread: readonly ManyItem<R>[]
  unfinished: readonly Unfinished<R>[]
  /** Plain data. */
  toJSON(): object
  /** The counts in one line. */
  toString(): string
}

/** A request that was stopped before it finished, with the results of its users. */
export interface Unfinished<R extends ManyRequest = ManyRequest> extends Readonly<Users> {
  index: number
  request: R
  tag: R['tag']
}

/**
 * The part of the client that a `Many` uses.
 *
 * @internal
 */
export interface Owner {
  errorOf(data: ErrorData, outcome: Outcome | undefined): FeedCardError
  /** Referenced here for as long as the `Many` exists. */
  readonly context: CallContext | undefined
}

/** A request that was read and has no result yet. */
interface Open<R> {
  readonly request: R
  readonly tag: unknown
  readonly userIds: string[]
  /** The error of an invalid request. */
  readonly error: InvalidInputError | undefined
}

interface Waiter<R extends ManyRequest> {
  resolve(result: IteratorResult<ManyItem<R>, undefined>): void
  reject(thrown: unknown): void
}

interface Batch {
  items: ItemData[]
  /** All requests have finished. */
  isLast: boolean
  /** Absent if it has not changed. */
  progress?: Progress
  /** The core accepts no more requests: the total timeout passed, the calls were stopped, or the input ended. */
  readsNoMore: boolean
  /** The error to throw after the last result. */
  error?: ErrorData
}

/** `isListed`: whether the report's `failures` include the item. */
type ItemData = [index: number, result: CallResult, isListed: boolean]

interface ReportData {
  taken: number
  succeeded: number
  failed: number
  notRead?: number
  summary: string
  unread: ItemData[]
  unfinished: [index: number, users: Users][]
}

/** An async iterator of results. Reads requests only while a result is awaited. Leaving the loop stops all calls. */
export class Many<R extends ManyRequest = ManyRequest> {
  readonly #native: NativeMany
  readonly #owner: Owner
  readonly #requests: Iterable<R> | AsyncIterable<R>
  readonly #progress: ((progress: Progress) => void) | undefined
  readonly #signal: AbortSignal | undefined
  #forgetSignal = () => {}
  #source: Source<R> | undefined
  #sourceLeft: Promise<void> | undefined
  #taken = 0
  readonly #open = new Map<number, Open<R>>()
  /** Requests that were read and not yet passed to the core. */
  #toFeed: unknown[] = []
  /** The request to the core for the next results. */
  #nextBatch: Promise<void> | undefined
  /** Results that were not requested yet. */
  #results: ManyItem<R>[] = []
  readonly #waiters: Waiter<R>[] = []
  /** Thrown after the results. */
  #failure: { readonly thrown: unknown } | undefined
  /** The error to throw because some requests were not read. */
  #notAllRead: FeedCardError | undefined
  #stopping: Promise<void> | undefined
  /** Only `#results` and `#failure` are left. */
  #isOver = false
  #unread: ManyItem<R>[] = []
  readonly #failures: ManyItem<R>[] = []
  #report: Report<R> | undefined

  /** @internal */
  constructor(
    many: NativeMany,
    owner: Owner,
    requests: Iterable<R> | AsyncIterable<R>,
    { progress, signal }: ManyOptions,
  ) {
    this.#native = many
    this.#owner = owner
    this.#requests = requests
    this.#progress = progress
    this.#signal = signal
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** Rejects, because `await` of a `Many` would send nothing. */
  // oxlint-disable-next-line no-thenable -- so that `await` fails
  then(_: unknown, reject: (thrown: unknown) => void): void {
    reject(
      invalidInput('setTimeSensitiveMany', 'awaited', 'a loop with `for await`, or `await many.collect()`'),
    )
  }

  /** Rejects with an exception of `requests`. The error of a single request is in its item. */
  next(): Promise<IteratorResult<ManyItem<R>, undefined>> {
    if (this.#results.length > 0 && this.#waiters.length === 0) {
      return Promise.resolve({ done: false, value: this.#results.shift() as ManyItem<R> })
    }
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject })
      this.#serve()
    })
  }

  /** Stops all calls, and closes `requests`. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#failure = undefined
    this.#leave()
    await this.#stop()
    await this.#sourceLeft
    return { done: true, value: undefined }
  }

  /** {@link Many.return} */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.return()
  }

  /**
   * Waits for all calls. Returns the items that the loop has not taken, by index, and the report. Does not reject if
   * `totalTimeoutMs` passed or the client was closed before all requests were read, because the items would be lost:
   * see `report.notRead`.
   *
   * @example
   * ```ts
   * const { items, report } = await client.setTimeSensitiveMany(requests).collect()
   * console.log(`${report}`) // 3 taken: 2 succeeded, 1 failed, 0 unfinished; 0 not read
   * ```
   */
  async collect(): Promise<{ items: ManyItem<R>[]; report: Report<R> }> {
    const items: ManyItem<R>[] = []
    try {
      for await (const item of this) {
        items.push(item)
      }
    } catch (thrown) {
      if (thrown !== this.#notAllRead) {
        for (const item of items) {
          this.#unread.push(item)
        }
        throw thrown
      }
    }
    return { items: items.toSorted(byIndex), report: await this.report() }
  }

  /** Stops all calls, and accounts for every request. */
  async report(): Promise<Report<R>> {
    this.#leave()
    await this.#stop()
    return this.#report as Report<R>
  }

  #serve(): void {
    while (this.#waiters.length > 0) {
      const value = this.#results.shift()
      if (value !== undefined) {
        this.#waiters.shift()?.resolve({ done: false, value })
      } else if (!this.#isOver) {
        this.#pull()
        return
      } else if (this.#failure !== undefined) {
        const { thrown } = this.#failure
        this.#failure = undefined
        this.#waiters.shift()?.reject(thrown)
      } else {
        this.#waiters.shift()?.resolve({ done: true, value: undefined })
      }
    }
  }

  /** Reads requests while there is room, and requests results from the core. */
  #pull(): void {
    if (this.#nextBatch !== undefined || this.#stopping !== undefined) {
      return
    }
    this.#start()
    this.#source?.read()
    if (this.#stopping === undefined) {
      this.#nextBatch = messageFor((id) => this.#native.nextBatch(id)).then(
        (message) => this.#take(message),
        (thrown: unknown) => this.#fail(thrown),
      )
    }
  }

  #start(): void {
    if (this.#source !== undefined) {
      return
    }
    const signal = this.#signal
    if (signal?.aborted) {
      this.#abort(signal)
      return
    }
    if (signal !== undefined) {
      // Weak, because a signal may live as long as the program and must not keep this object.
      const weak = new WeakRef(this)
      this.#forgetSignal = onAbort(signal, () => {
        const many = weak.deref()
        if (many !== undefined) {
          many.#abort(signal)
        }
      })
    }
    const { concurrency: room, readsForMs } = this.#native
    try {
      this.#source = new Source(this.#requests, {
        readsForMs,
        hasRoom: () => this.#stopping === undefined && this.#open.size < room,
        take: (request) => this.#read(request),
        flush: () => this.#feed(),
        end: () => this.#native.end(),
        fail: (thrown) => this.#fail(thrown),
      })
    } catch (thrown) {
      this.#fail(thrown)
    }
  }

  #read(request: R): void {
    const index = this.#taken
    this.#taken += 1
    const userIds: string[] = []
    let tag: unknown
    try {
      // The element may be of any type. Only its own property counts as a tag.
      tag = Object.hasOwn(Object(request) as object, 'tag') ? request.tag : undefined
      this.#toFeed.push(checkCall(`requests[${index}]`, request, requestNames, userIds))
      this.#open.set(index, { request, tag, userIds, error: undefined })
    } catch (error) {
      if (!(error instanceof InvalidInputError)) {
        // The request's own code threw, for example in a getter.
        this.#open.set(index, { request, tag, userIds, error: undefined })
        this.#feed()
        this.#native.feedUnreadable(userIds)
        throw error
      }
      this.#open.set(index, { request, tag, userIds: [...error.notAttempted], error })
      this.#toFeed.push(null)
    }
  }

  #feed(): void {
    if (this.#toFeed.length > 0) {
      this.#native.feed(JSON.stringify(this.#toFeed))
      this.#toFeed = []
    }
  }

  #take({ many, panic }: Message): void {
    this.#nextBatch = undefined
    if (many === undefined) {
      this.#fail(bugOf(panic))
      return
    }
    const { items, isLast, progress, readsNoMore, error } = many as Batch
    this.#keep(items)
    if (readsNoMore) {
      this.#leaveSource()
    }
    if (this.#stopping !== undefined) {
      this.#serve()
      return
    }
    if (error !== undefined) {
      this.#notAllRead = this.#owner.errorOf(error, undefined)
      this.#fail(this.#notAllRead)
    } else if (isLast) {
      void this.#stop()
    } else if (progress !== undefined) {
      this.#reportProgress(progress)
    }
    this.#serve()
  }

  #reportProgress(progress: Progress): void {
    try {
      const returned: unknown = this.#progress?.(progress)
      if (returned instanceof Promise) {
        // After the end, leave it as an unhandled rejection, because the loop can no longer throw it.
        returned.catch((thrown: unknown) => (this.#isOver ? Promise.reject(thrown) : this.#fail(thrown)))
      }
    } catch (thrown) {
      this.#fail(thrown)
    }
  }

  #keep(items: ItemData[]): void {
    const results = this.#isOver ? this.#unread : this.#results
    for (const [index, result, isListed] of items) {
      const item = this.#itemOf(index, result)
      results.push(item)
      if (isListed) {
        this.#failures.push(item)
      }
    }
  }

  #itemOf(index: number, result: CallResult): ManyItem<R> {
    const { request, tag, userIds, error: invalid } = this.#takeOpen(index)
    if (invalid !== undefined) {
      return withJSON({ index, request, tag, error: invalid })
    }
    const outcome = outcomeOf(result, userIds)
    return result.error === undefined
      ? withJSON({ index, request, tag, outcome: outcome as Outcome })
      : withJSON({ index, request, tag, error: this.#owner.errorOf(result.error, outcome) })
  }

  #takeOpen(index: number): Open<R> {
    const open = this.#open.get(index) as Open<R>
    this.#open.delete(index)
    return open
  }

  #abort(signal: AbortSignal): void {
    this.#failure = { thrown: reasonOf(signal) }
    this.#leave()
    void this.#stop()
  }

  /** Stops all calls. The loop throws the exception after the available results. */
  #fail(thrown: unknown): void {
    if (this.#stopping === undefined) {
      this.#failure = { thrown }
      void this.#stop()
    }
  }

  /** Ends the loop. The remaining results go to the report. */
  #leave(): void {
    this.#isOver = true
    this.#unread.push(...this.#results)
    this.#results = []
    this.#serve()
  }

  #leaveSource(): void {
    if (this.#source !== undefined && this.#sourceLeft === undefined) {
      this.#sourceLeft = this.#source.leave()
      // Only `return` throws an exception of closing the source. At other ends, the loop throws the reason of the end.
      this.#sourceLeft.catch(() => {})
    }
  }

  #stop(): Promise<void> {
    this.#stopping ??= this.#end()
    return this.#stopping
  }

  async #end(): Promise<void> {
    // `#stopping` must be set before the source's code runs.
    await undefined
    this.#forgetSignal()
    this.#leaveSource()
    this.#feed()
    const message = messageFor((id) => this.#native.report(id))
    await this.#nextBatch
    const { many, panic } = await message
    let counts: Pick<Report, 'taken' | 'succeeded' | 'failed' | 'notRead'> = {
      taken: this.#taken,
      succeeded: 0,
      failed: 0,
    }
    let text = 'unknown'
    let unfinished: Unfinished<R>[] = []
    if (many === undefined) {
      this.#failure = { thrown: bugOf(panic) }
    } else {
      const { unread, unfinished: stopped, summary, ...counted } = many as ReportData
      counts = counted
      text = summary
      this.#keep(unread)
      unfinished = stopped.map(([index, users]) => this.#unfinished(index, users))
    }
    const report = { ...counts, failures: this.#failures.toSorted(byIndex), unread: this.#unread, unfinished }
    this.#report = withJSON(Object.defineProperty(report, 'toString', { value: () => text }))
    this.#isOver = true
    this.#serve()
  }

  #unfinished(index: number, users: Users): Unfinished<R> {
    const { request, tag } = this.#takeOpen(index)
    return { index, request, tag, ...users }
  }
}

const byIndex = (one: { index: number }, other: { index: number }) => one.index - other.index

const optionNames = ['concurrency', 'progress', 'totalTimeoutMs', 'signal', 'onEvent'] as const

/** @internal */
export function checkMany(requests: unknown, given: unknown) {
  if (
    typeof requests !== 'object' ||
    requests === null ||
    !(Symbol.asyncIterator in requests || Symbol.iterator in requests)
  ) {
    const isPromise = typeof (requests as { then?: unknown } | null | undefined)?.then === 'function'
    throw invalidInput(
      'requests',
      isPromise ? 'a promise' : check.kindOf(requests),
      `an iterable or async iterable of requests${isPromise ? '; await the promise first' : ''}`,
    )
  }
  const { concurrency, progress, totalTimeoutMs, signal, onEvent } = check.fields(
    'setTimeSensitiveMany',
    given,
    optionNames,
  )
  return {
    options: {
      progress: check.callback('progress', progress) as ManyOptions['progress'],
      onEvent: check.callback('onEvent', onEvent) as OnEvent | undefined,
      signal: signal === undefined ? undefined : check.signal(signal),
    },
    arguments: {
      ...(concurrency !== undefined && {
        concurrency: check.number('concurrency', concurrency, 'a whole number, at least 1'),
      }),
      ...(totalTimeoutMs !== undefined && {
        totalTimeoutMs: check.number('totalTimeoutMs', totalTimeoutMs, 'a number of milliseconds'),
      }),
      ...totalOf(requests),
    },
  }
}

function totalOf(requests: object): { total: number } | undefined {
  if (Array.isArray(requests)) {
    return { total: requests.length }
  }
  return requests instanceof Set ? { total: requests.size } : undefined
}
