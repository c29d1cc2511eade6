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
import { type FeedCardError, InvalidInputError, errorOf, invalidInput, withJSON } from './errors.js'
import { native } from './load.js'
import { type Answer, type Outcome, outcomeOf } from './outcome.js'
import { Source } from './source.js'

export type ManyRequest = Omit<SetTimeSensitive, 'signal' | 'onEvent'>

/** What one request, the very object handed in, came back with. */
export type ManyItem = {
  /** From 0. */
  index: number
  request: ManyRequest
  /** Plain data. */
  toJSON(): object
} & ({ outcome: Outcome; error?: undefined } | { outcome?: undefined; error: FeedCardError })

export interface ManyOptions {
  /** Requests on their way, or waiting for the quota, at a time; 100 unless said. */
  concurrency?: number | undefined
  /** Called with results, and every 2 s of waiting. What it throws stops the calls. */
  progress?: ((progress: Progress) => void) | undefined
  /** For all; no bound unless said. Then nothing more is read, and what is late fails. */
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
export interface Report {
  /** Requests read; those after them were not touched. */
  taken: number
  succeeded: number
  failed: number
  /** Results that are counted above and were not handed out. */
  unread: readonly ManyItem[]
  unfinished: readonly Unfinished[]
  /** Plain data. */
  toJSON(): object
}

/** Stopped on its way, with what became of its users. */
export interface Unfinished extends Readonly<Users> {
  index: number
  request: ManyRequest
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
  /** The handle needs it no more. */
  ended(): void
}

/** A request that was read and is not back. */
interface Open {
  readonly request: ManyRequest
  readonly userIds: string[]
  /** What this side found wrong with it. */
  readonly error: InvalidInputError | undefined
}

interface Waiter {
  resolve(result: IteratorResult<ManyItem, undefined>): void
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
}

type ItemData = [index: number, answer: Answer]

interface ReportData {
  taken: number
  succeeded: number
  failed: number
  unread: ItemData[]
  unfinished: [index: number, users: Users][]
}

/** Reads requests as there is room, while results are asked for. Leaving the loop stops it. */
export class Many {
  readonly #native: NativeMany
  readonly #owner: Owner
  readonly #requests: Iterable<ManyRequest> | AsyncIterable<ManyRequest>
  readonly #progress: ((progress: Progress) => void) | undefined
  readonly #signal: AbortSignal | undefined
  #forgetSignal = () => {}
  #source: Source<ManyRequest> | undefined
  #sourceLeft: Promise<void> | undefined
  #taken = 0
  readonly #open = new Map<number, Open>()
  /** Read, and to be handed over. */
  #toFeed: unknown[] = []
  #asked: Promise<void> | undefined
  /** Results that came back and were not asked for yet. */
  #results: ManyItem[] = []
  readonly #waiters: Waiter[] = []
  /** To be thrown after the results. */
  #failure: { readonly thrown: unknown } | undefined
  #stopping: Promise<void> | undefined
  /** Nothing comes any more but `#results` and `#failure`. */
  #isOver = false
  #unread: ManyItem[] = []
  #report: Report | undefined

  /** @internal */
  constructor(
    many: NativeMany,
    owner: Owner,
    requests: Iterable<ManyRequest> | AsyncIterable<ManyRequest>,
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

  /** Rejects with what `requests` throws; a request's error is in its item. */
  next(): Promise<IteratorResult<ManyItem, undefined>> {
    if (this.#results.length > 0 && this.#waiters.length === 0) {
      return Promise.resolve({ done: false, value: this.#results.shift() as ManyItem })
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

  /** What became of every request. Stops what is on its way. */
  async report(): Promise<Report> {
    this.#leave()
    await this.#stop()
    return this.#report as Report
  }

  /**
   * The client was closed.
   *
   * @internal
   */
  close(): Promise<void> {
    this.#fail(errorOf(native.clientClosed()))
    return this.#stop()
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

  #read(request: ManyRequest): void {
    const index = this.#taken
    this.#taken += 1
    const userIds: string[] = []
    try {
      this.#toFeed.push(checkCall(`requests[${index}]`, request, requestNames, userIds))
      this.#open.set(index, { request, userIds, error: undefined })
    } catch (error) {
      if (!(error instanceof InvalidInputError)) {
        // Its own code threw.
        this.#open.set(index, { request, userIds, error: undefined })
        this.#feed()
        this.#native.feedUnreadable(userIds)
        throw error
      }
      this.#open.set(index, { request, userIds: [...error.notAttempted], error })
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
    const { items, isLast, progress, readsNoMore } = many as Batch
    this.#keep(items)
    if (readsNoMore) {
      this.#leaveSource()
    }
    if (this.#stopping !== undefined) {
      this.#serve()
      return
    }
    if (isLast) {
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
    for (const item of items) {
      results.push(this.#itemOf(item))
    }
  }

  #itemOf([index, answer]: ItemData): ManyItem {
    const { request, userIds, error: found } = this.#open.get(index) as Open
    this.#open.delete(index)
    if (found !== undefined) {
      return withJSON({ index, request, error: found })
    }
    const outcome = outcomeOf(answer, userIds)
    return answer.error === undefined
      ? withJSON({ index, request, outcome: outcome as Outcome })
      : withJSON({ index, request, error: this.#owner.errorOf(answer.error, outcome) })
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
    let counts = { taken: this.#taken, succeeded: 0, failed: 0 }
    let unfinished: Unfinished[] = []
    if (many === undefined) {
      this.#failure = { thrown: bugOf(panic) }
    } else {
      const { unread, unfinished: stopped, ...counted } = many as ReportData
      counts = counted
      this.#keep(unread)
      unfinished = stopped.map(([index, users]) => this.#unfinished(index, users))
    }
    this.#report = withJSON({ ...counts, unread: this.#unread, unfinished })
    this.#isOver = true
    this.#owner.ended()
    this.#serve()
  }

  #unfinished(index: number, users: Users): Unfinished {
    const { request } = this.#open.get(index) as Open
    this.#open.delete(index)
    return { index, request, ...users }
  }
}

const optionNames = ['concurrency', 'progress', 'totalTimeoutMs', 'signal', 'onEvent'] as const

/** @internal */
export function checkMany(requests: unknown, given: unknown) {
  if (
    typeof requests !== 'object' ||
    requests === null ||
    !(Symbol.asyncIterator in requests || Symbol.iterator in requests)
  ) {
    throw invalidInput('requests', check.kindOf(requests), 'an iterable or async iterable of requests')
  }
  const { concurrency, progress, totalTimeoutMs, signal, onEvent } = check.fields(
    'setTimeSensitiveMany',
    given,
    optionNames,
  )
  return {
    requests: requests as Iterable<ManyRequest> | AsyncIterable<ManyRequest>,
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
