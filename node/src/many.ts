import type { ErrorData, NativeMany, Users } from './binding.js'
import { type SetTimeSensitive, checkCall, requestNames } from './call.js'
import * as check from './checks.js'
import {
  type CallContext,
  type ClientEvent,
  type Message,
  type OnEvent,
  ask,
  bugOf,
  onAbort,
  reasonOf,
} from './environment.js'
import { type FeedCardError, InvalidInputError, invalidInput, withJSON } from './errors.js'
import { type Answer, type Outcome, outcomeOf } from './outcome.js'
import { Source } from './source.js'

export interface ManyRequest extends Omit<SetTimeSensitive, 'signal' | 'onEvent'> {
  /** Any value of your own. Not sent; returned with the result. */
  tag?: unknown
}

/** Rejects keys that `ManyRequest` does not have, as the client does at run time. */
export type Exactly<R> = R & { [Key in Exclude<keyof R, keyof ManyRequest>]: never }

/** What one request, the very object handed in, came back with. */
export type ManyItem<R extends ManyRequest = ManyRequest> = {
  /** From 0. */
  index: number
  request: R
  tag: R['tag']
  /** Plain data. */
  toJSON(): object
} & ({ outcome: Outcome; error?: undefined } | { outcome?: undefined; error: FeedCardError })

export interface ManyOptions {
  /** Requests on their way, or waiting for the quota, at a time. Default: 100. */
  concurrency?: number | undefined
  /** Called with results, and every 2 s of waiting. What it throws stops the calls. */
  progress?: ((progress: Progress) => void) | undefined
  /**
   * Time limit for all requests. Default: none. After it no more requests are read, and unanswered ones fail. If not all were read, the
   * loop throws a {@link DeadlineExceededError} at its end.
   */
  totalTimeoutMs?: number | undefined
  /** Stops everything: the loop throws the signal's reason. */
  signal?: AbortSignal | undefined
  /** Gets the events of all, beside the client's own. */
  onEvent?: ((event: ClientEvent) => void) | undefined
}

export interface Progress {
  /** Those that failed included. */
  done: number
  /** Known of an array or a `Set`. */
  total?: number
  /** With an error, or with users not reached. */
  failed: number
  waitingForQuota: number
  /** The least that the quota allows, where the total is known. */
  etaMs?: number
}

/** `taken` is the sum of `succeeded`, `failed` and the unfinished. */
export interface Report<R extends ManyRequest = ManyRequest> {
  /** Requests read. */
  taken: number
  succeeded: number
  /** With an error, or with users not reached. */
  failed: number
  /** Requests not read; absent if the number is unknown. */
  notRead?: number
  /** Items that failed, by index; at most the first 10,000 that finished. */
  failures: readonly ManyItem<R>[]
  /** Results that are counted above and were not handed out. */
  unread: readonly ManyItem<R>[]
  unfinished: readonly Unfinished<R>[]
  /** Plain data. */
  toJSON(): object
  /** The counts in one line. */
  toString(): string
}

/** Stopped on its way, with what became of its users. */
export interface Unfinished<R extends ManyRequest = ManyRequest> extends Readonly<Users> {
  index: number
  request: R
  tag: R['tag']
}

/**
 * What a handle needs of its client.
 *
 * @internal
 */
export interface Owner {
  errorOf(data: ErrorData, outcome: Outcome | undefined): FeedCardError
  /** Lives as long as the handle. */
  readonly context: CallContext | undefined
}

/** A request that was read and is not back. */
interface Open<R> {
  readonly request: R
  readonly tag: unknown
  readonly userIds: string[]
  /** What this side found wrong with it. */
  readonly error: InvalidInputError | undefined
}

interface Waiter<R extends ManyRequest> {
  resolve(result: IteratorResult<ManyItem<R>, undefined>): void
  reject(thrown: unknown): void
}

interface Batch {
  items: ItemData[]
  /** Every request has come back. */
  isLast: boolean
  /** If it has changed. */
  progress?: Progress
  /** The core takes no more requests: the total timeout passed, the calls were stopped, or the input ended. */
  readsNoMore: boolean
  /** To be thrown after the last result. */
  error?: ErrorData
}

type ItemData = [index: number, answer: Answer, isListed: boolean]

interface ReportData {
  taken: number
  succeeded: number
  failed: number
  notRead?: number
  summary: string
  unread: ItemData[]
  unfinished: [index: number, users: Users][]
}

/** Reads requests as there is room, while results are asked for. Leaving the loop stops it. */
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
  /** Read, and to be handed over. */
  #toFeed: unknown[] = []
  #asked: Promise<void> | undefined
  /** Results that came back and were not asked for yet. */
  #results: ManyItem<R>[] = []
  readonly #waiters: Waiter<R>[] = []
  /** To be thrown after the results. */
  #failure: { readonly thrown: unknown } | undefined
  /** The failure that says that not all requests were read. */
  #notAllRead: FeedCardError | undefined
  #stopping: Promise<void> | undefined
  /** Nothing comes any more but `#results` and `#failure`. */
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

  /** Fails: `await` of the handle itself would send nothing. */
  // oxlint-disable-next-line no-thenable -- so that awaiting it fails
  then(_: unknown, reject: (thrown: unknown) => void): void {
    reject(
      invalidInput('setTimeSensitiveMany', 'awaited', 'a loop with `for await`, or `await many.collect()`'),
    )
  }

  /** Rejects with what `requests` throws; a request's error is in its item. */
  next(): Promise<IteratorResult<ManyItem<R>, undefined>> {
    if (this.#results.length > 0 && this.#waiters.length === 0) {
      return Promise.resolve({ done: false, value: this.#results.shift() as ManyItem<R> })
    }
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject })
      this.#serve()
    })
  }

  /** Stops what is on its way, and closes `requests`. */
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
   * The items that were not handed out, by index, and the report. If not all requests were read, because
   * `totalTimeoutMs` passed or the client was closed, it does not reject, as the items would be lost:
   * `report.notRead` says how many were not read.
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

  /** What became of every request. Stops what is on its way. */
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

  /** Reads what there is room for, and asks for results. */
  #pull(): void {
    if (this.#asked !== undefined || this.#stopping !== undefined) {
      return
    }
    this.#start()
    this.#source?.read()
    if (this.#stopping === undefined) {
      this.#asked = ask((id) => this.#native.ask(id)).then(
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
      // Weak: a signal may live as long as the program, and a handle that was dropped is collected.
      const handle = new WeakRef(this)
      this.#forgetSignal = onAbort(signal, () => {
        const living = handle.deref()
        if (living !== undefined) {
          living.#abort(signal)
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
        // Its own code threw.
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
    this.#asked = undefined
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
      this.#tell(progress)
    }
    this.#serve()
  }

  #tell(progress: Progress): void {
    try {
      const returned: unknown = this.#progress?.(progress)
      if (returned instanceof Promise) {
        // An unhandled rejection where no loop is there any more to throw it to.
        returned.catch((thrown: unknown) => (this.#isOver ? Promise.reject(thrown) : this.#fail(thrown)))
      }
    } catch (thrown) {
      this.#fail(thrown)
    }
  }

  #keep(items: ItemData[]): void {
    const results = this.#isOver ? this.#unread : this.#results
    for (const [index, answer, isListed] of items) {
      const item = this.#itemOf(index, answer)
      results.push(item)
      if (isListed) {
        this.#failures.push(item)
      }
    }
  }

  #itemOf(index: number, answer: Answer): ManyItem<R> {
    const { request, tag, userIds, error: found } = this.#takeBack(index)
    if (found !== undefined) {
      return withJSON({ index, request, tag, error: found })
    }
    const outcome = outcomeOf(answer, userIds)
    return answer.error === undefined
      ? withJSON({ index, request, tag, outcome: outcome as Outcome })
      : withJSON({ index, request, tag, error: this.#owner.errorOf(answer.error, outcome) })
  }

  #takeBack(index: number): Open<R> {
    const open = this.#open.get(index) as Open<R>
    this.#open.delete(index)
    return open
  }

  #abort(signal: AbortSignal): void {
    this.#failure = { thrown: reasonOf(signal) }
    this.#leave()
    void this.#stop()
  }

  /** Lets what had finished be read first. */
  #fail(thrown: unknown): void {
    if (this.#stopping === undefined) {
      this.#failure = { thrown }
      void this.#stop()
    }
  }

  /** Nobody reads on. */
  #leave(): void {
    this.#isOver = true
    this.#unread.push(...this.#results)
    this.#results = []
    this.#serve()
  }

  #leaveSource(): void {
    if (this.#source !== undefined && this.#sourceLeft === undefined) {
      this.#sourceLeft = this.#source.leave()
      // Only `return` tells what closing the source threw; other ends have a reason of their own.
      this.#sourceLeft.catch(() => {})
    }
  }

  #stop(): Promise<void> {
    this.#stopping ??= this.#end()
    return this.#stopping
  }

  async #end(): Promise<void> {
    // Whoever stops it has to know that it is stopping before the source's own code runs.
    await undefined
    this.#forgetSignal()
    this.#leaveSource()
    this.#feed()
    const told = ask((id) => this.#native.report(id))
    await this.#asked
    const { many, panic } = await told
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
    const { request, tag } = this.#takeBack(index)
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
      `an iterable or async iterable of requests${isPromise ? ': await it first' : ''}`,
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
