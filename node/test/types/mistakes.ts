// Mistakes, which must be type errors. tsc reports a `@ts-expect-error` without an error below it.

import { Client, FeedCardError, Many, type ManyRequest, Outcome, type Quota } from 'feishu-feed-card'
import { Sandbox } from 'feishu-feed-card/sandbox'

declare const client: Client
declare const outcome: Outcome

// @ts-expect-error no options at all
void new Client()
// @ts-expect-error an unknown option
void new Client({ appID: 'cli_1' })
// @ts-expect-error `timeout` is Python's name; here it is `timeoutMs`
void new Client({ appId: 'cli_1', appSecret: 's', timeout: 5 })
// @ts-expect-error a number as a string
void new Client({ appId: 'cli_1', appSecret: 's', timeoutMs: '5' })
// @ts-expect-error null is not undefined
void new Client({ appId: 'cli_1', appSecret: null })
// @ts-expect-error perMinute is missing
void new Client({ appId: 'cli_1', appSecret: 's', rateLimit: { perSecond: 5 } })
// @ts-expect-error true is not a limit
void new Client({ appId: 'cli_1', appSecret: 's', rateLimit: true })
// @ts-expect-error true is not a proxy
void new Client({ appId: 'cli_1', appSecret: 's', proxy: true })
// @ts-expect-error an event is an object and not a string
void new Client({ appId: 'cli_1', appSecret: 's', onEvent: (event: string) => event })
// @ts-expect-error a provider returns a token
void new Client({ tokenProvider: () => 5 })
// @ts-expect-error a provider's argument is a reason and not a string
void new Client({ tokenProvider: (scope: string) => scope })
// @ts-expect-error the name is timeoutMs
void client.close({ timeout: 5 })
// @ts-expect-error a Quota cannot be constructed
export const quota: Quota = {}

const userIds = ['ou_1']
const pin = { feedCardId: 'oc_1', userIds, timeSensitive: true }

// @ts-expect-error one string is not a list
void client.setTimeSensitive({ ...pin, userIds: 'ou_1' })
// @ts-expect-error the state is not optional
void client.setTimeSensitive({ feedCardId: 'oc_1', userIds })
// @ts-expect-error nor is the chat
void client.setTimeSensitive({ userIds, timeSensitive: true })
// @ts-expect-error the bot's own chat has no id
void client.setBotTimeSensitive({ feedCardId: 'oc_1', userIds, timeSensitive: true })
// @ts-expect-error the platform's own words only
void client.setTimeSensitive({ ...pin, userIdType: 'openId' })
// @ts-expect-error a controller is not its signal
void client.setTimeSensitive({ ...pin, signal: new AbortController() })
// @ts-expect-error arguments in a row are Python's
void client.setTimeSensitive('oc_1', ['ou_1'], true)

// @ts-expect-error one request is not many
void client.setTimeSensitiveMany(pin)
// @ts-expect-error one of many has no signal
export const request: ManyRequest = { ...pin, signal: AbortSignal.abort() }
// @ts-expect-error own data goes into the tag
void client.setTimeSensitiveMany([{ ...pin, rowId: 7 }])
const rows = [1, 2].map((rowId) => ({ feedCardId: 'oc_1', userIds, timeSensitive: true, rowId }))
// @ts-expect-error also that of rows that were made before
void client.setTimeSensitiveMany(rows)
// @ts-expect-error a misspelt parameter
void client.setTimeSensitiveMany([{ ...pin, timeout: 5 }])
// @ts-expect-error the tag has its type
for await (const { tag } of client.setTimeSensitiveMany([{ ...pin, tag: 'row' }])) tag.toFixed()
// @ts-expect-error nor is it a chat's id alone
void client.setTimeSensitiveMany(['oc_1'])
// @ts-expect-error an unknown option
void client.setTimeSensitiveMany([pin], { timeoutMs: 5 })
// @ts-expect-error handles come from clients
void new Many([pin])
// @ts-expect-error a handle is not awaited: that sends nothing
export const awaited = async () => await client.setTimeSensitiveMany([pin])

// @ts-expect-error an outcome is read, not changed
outcome.ok = true
// @ts-expect-error nor its lists
outcome.reached.push('ou_1')
// @ts-expect-error the user may be unnamed
export const userId: string = outcome.failedUserReasons[0]!.userId
// @ts-expect-error outcomes come from calls
void new Outcome({})
// @ts-expect-error nor without data
void new Outcome()
// @ts-expect-error nor from classes derived from it
export class Derived extends Outcome {}
// @ts-expect-error the native half is nobody's business
void client.native

// @ts-expect-error a fact nobody knows
void new FeedCardError('message', { platform_code: 5 })
// @ts-expect-error the reasons are closed
export const isUnknown = (error: FeedCardError) => error.reason === 'tls_unknown'
// @ts-expect-error the kinds are closed
export const isIt = (error: FeedCardError) => error.code === 'RATE_LIMIT'

// @ts-expect-error a sandbox is started
void new Sandbox()
// @ts-expect-error the name is TypeScript's: an import would shadow it
export type Shadowing = import('feishu-feed-card/sandbox').Record
// @ts-expect-error a fault nobody knows
Sandbox.start().faults({ statsu: 502 })
