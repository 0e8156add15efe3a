using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Tensormesh.Billing;
using Tensormesh.TestKit;
using Tensormesh.Web;

namespace Tensormesh.Integration.Tests.Web;

/// <summary>Usage over HTTP: every form of CloudEvents, what each event's answer is, and what gateways and customers read.</summary>
[Collection(WebSuite.Name)]
public sealed class UsageRouteTests(WebServer server)
{
    private const string Events = "/v1/usage/events";
    private const string Model = "meta-llama/Llama-3.3-70B-Instruct";
    private static readonly HttpClient Http = new();

    private readonly WebServer server = server;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task One_event_a_batch_and_lines_are_counted_once_each_whatever_form_they_come_in()
    {
        var account = await OpenAsync("10");
        var gateway = server.As("ops", "ADMIN");
        (await gateway.SendAsync(HttpMethod.Post, Events, Event("1", account), contentType: UsageApi.One)).IsExactly(
            """{"accepted":1,"duplicate":0,"rejected":0,"results":[{"id":"1","status":"ACCEPTED"}]}""");
        (await gateway.SendAsync(HttpMethod.Post, Events, $"[{Event("1", account)},{Event("2", account)}]", contentType: UsageApi.Batch)).IsExactly(
            """{"accepted":1,"duplicate":1,"rejected":0,"results":[{"id":"1","status":"DUPLICATE"},{"id":"2","status":"ACCEPTED"}]}""");
        (await gateway.SendAsync(HttpMethod.Post, Events, $"{Event("2", account)}\r\n\n{Event("3", account)}", contentType: UsageApi.Lines)).IsExactly(
            """{"accepted":1,"duplicate":1,"rejected":0,"results":[{"id":"2","status":"DUPLICATE"},{"id":"3","status":"ACCEPTED"}]}""");
        (await BinaryAsync("4", account)).IsExactly("""{"accepted":1,"duplicate":0,"rejected":0,"results":[{"id":"4","status":"ACCEPTED"}]}""");
        (await BinaryAsync("3", account)).IsExactly("""{"accepted":0,"duplicate":1,"rejected":0,"results":[{"id":"3","status":"DUPLICATE"}]}""");
        (await gateway.SendAsync(HttpMethod.Post, Events, "[]", contentType: UsageApi.Batch)).IsExactly("""{"accepted":0,"duplicate":0,"rejected":0,"results":[]}""");

        // Four events of 1,000 input (400 cached) and 100 output tokens at $0.60, $0.06 and $2.40 per million.
        var usage = (await server.As(account).GetAsync("/v1/billing/serverless-usage")).Ok();
        Assert.Equal((4000L, 1600L, 400L), (usage.GetProperty("inputTokens").GetInt64(), usage.GetProperty("cachedTokens").GetInt64(), usage.GetProperty("outputTokens").GetInt64()));
        Assert.Equal("2496000", usage.GetProperty("totalCost").GetProperty("nanos").GetRawText());
        Assert.Equal("864000", usage.GetProperty("savings").GetProperty("nanos").GetRawText());
        Assert.Equal(0.4m, usage.GetProperty("models")[0].GetProperty("cacheHitRate").GetDecimal());
        Assert.Equal(Model, usage.GetProperty("models")[0].GetProperty("model").GetString());
        Assert.Equal(1, usage.GetProperty("days").GetArrayLength());
        Assert.Equal("997504000", (await server.As(account).GetAsync("/v1/billing/balance")).Ok().GetProperty("balance").GetProperty("nanos").GetRawText());
        var month = DateTimeOffset.UtcNow.ToString("yyyy-MM", CultureInfo.InvariantCulture);
        Assert.Equal(4000L, (await server.As(account).GetAsync($"/v1/billing/serverless-usage?month={month}")).Ok().GetProperty("inputTokens").GetInt64());
        Assert.Equal(0L, (await server.As(account).GetAsync("/v1/billing/serverless-usage?month=2020-01")).Ok().GetProperty("inputTokens").GetInt64());
        (await server.As(account).GetAsync("/v1/billing/serverless-usage?month=march")).Problem(HttpStatusCode.BadRequest, "invalid-field", "month");
    }

    /// <summary>The usage object as inference servers give it, in the shapes that were overlooked elsewhere: of a buffered answer, of the last chunk of a stream with
    /// choices or without, with details that are null or empty.</summary>
    [Theory]
    [InlineData("""{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100,"prompt_tokens_details":{"cached_tokens":400}}""", 400)]
    [InlineData("""{"total_tokens":1100,"completion_tokens":100,"prompt_tokens":1000,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":400},"completion_tokens_details":{"reasoning_tokens":7}}""", 400)]
    [InlineData("""{"prompt_tokens":1000,"completion_tokens":100,"prompt_tokens_details":null}""", 0)]
    [InlineData("""{"prompt_tokens":1000,"completion_tokens":100,"prompt_tokens_details":{}}""", 0)]
    [InlineData("""{"prompt_tokens":1000,"completion_tokens":100,"prompt_tokens_details":{"cached_tokens":null}}""", 0)]
    [InlineData("""{"prompt_tokens":1000,"completion_tokens":100}""", 0)]
    public async Task Streamed_and_buffered_answers_with_the_same_usage_cost_the_same_and_cached_tokens_their_own_price(string usage, long cached)
    {
        var account = await OpenAsync("10");
        var gateway = server.As("ops", "ADMIN");
        var counts = Event("counts", account).Replace("\"cachedTokens\":400", $"\"cachedTokens\":{cached}", StringComparison.Ordinal);
        var whole = $$$"""{"specversion":"1.0","id":"whole","source":"/inference/{{{account}}}","type":"{{{CloudEventReader.EventType}}}","time":"{{{Now()}}}","data":{"account":"{{{account}}}","model":"{{{Model}}}","usage":{{{usage}}}}}""";
        (await gateway.SendAsync(HttpMethod.Post, Events, $"[{counts}]", contentType: UsageApi.Batch)).Ok();
        var one = await CostAsync(account);
        (await gateway.SendAsync(HttpMethod.Post, Events, $"[{whole}]", contentType: UsageApi.Batch)).Ok();
        Assert.Equal(2 * one, await CostAsync(account));
        Assert.Equal((1000 - cached) * 600 + cached * 60 + 100 * 2400, one);
    }

    [Theory]
    [InlineData("\"usage\":null", "stream_options.include_usage")]
    [InlineData("\"usage\":{}", "A missing count is never taken for 0")]
    [InlineData("\"usage\":{\"prompt_tokens\":10}", "A missing count is never taken for 0")]
    [InlineData("\"inputTokens\":10,\"outputTokens\":5", "'data.cachedTokens' is missing")]
    [InlineData("\"inputTokens\":0,\"cachedTokens\":0,\"outputTokens\":0", "the usage of its last chunk")]
    [InlineData("\"inputTokens\":10,\"cachedTokens\":11,\"outputTokens\":5", "cached tokens are part of the input")]
    [InlineData("\"inputTokens\":10.5,\"cachedTokens\":0,\"outputTokens\":5", "'data.inputTokens' must be a whole number")]
    [InlineData("\"inputTokens\":\"10\",\"cachedTokens\":0,\"outputTokens\":5", "'data.inputTokens' must be a whole number")]
    [InlineData("\"inputTokens\":10,\"inputTokens\":1,\"cachedTokens\":0,\"outputTokens\":5", "a member twice")]
    [InlineData("\"inputTokens\":10,\"usage\":{\"prompt_tokens\":1},\"cachedTokens\":0,\"outputTokens\":5", "a member twice")]
    public async Task Usage_that_is_not_all_there_is_refused_and_never_a_charge_of_nothing(string counts, string says)
    {
        var account = await OpenAsync("10");
        var text = $$$"""{"specversion":"1.0","id":"1","source":"/inference/{{{account}}}","type":"{{{CloudEventReader.EventType}}}","time":"{{{Now()}}}","data":{"account":"{{{account}}}","model":"{{{Model}}}",{{{counts}}}}}""";
        Assert.Contains(says, (await server.As("ops", "ADMIN").SendAsync(HttpMethod.Post, Events, text, contentType: UsageApi.One)).Problem(HttpStatusCode.BadRequest, "usage-rejected"),
            StringComparison.Ordinal);
        Assert.Equal(0, await CostAsync(account));
    }

    [Fact]
    public async Task One_bad_event_is_told_by_itself_and_its_neighbours_are_counted()
    {
        var account = await OpenAsync("10");
        var gateway = server.As("ops", "ADMIN");
        string With(string id, string from, string to) => Event(id, account).Replace(from, to, StringComparison.Ordinal);
        string[] events =
        [
            Event("good", account), "7", "null", "[[1]]", "{}", With("v", "\"1.0\"", "\"0.3\""), With("t", CloudEventReader.EventType, "com.example.other"),
            With("time", Now()[..10], "yesterday-"), With("s", $"\"source\":\"/inference/{account}\",", ""), With("d", "\"data\":{", "\"data\":[{").Replace("}}", "}]}", StringComparison.Ordinal),
            With("a", account, "nobody-of-that-name"), With("m", Model, "=cmd|' /C calc'!A0"), With("b64", "\"data\":{", "\"data_base64\":\"e30=\",\"data\":{"), Event(new string('x', 600), account),
            Event("good-too", account),
        ];
        var answer = (await gateway.SendAsync(HttpMethod.Post, Events, $"[{string.Join(",", events)}]", contentType: UsageApi.Batch)).Ok();
        Assert.Equal((2, 13), (answer.GetProperty("accepted").GetInt32(), answer.GetProperty("rejected").GetInt32()));
        var results = answer.GetProperty("results").EnumerateArray().ToArray();
        Assert.Equal("ACCEPTED", results[0].GetProperty("status").GetString());
        Assert.Equal("ACCEPTED", results[^1].GetProperty("status").GetString());
        Assert.All(results[1..^1], result => Assert.NotEqual("", result.GetProperty("detail").GetString()));
        Assert.Equal("ACCOUNT_UNKNOWN", results[10].GetProperty("reason").GetString());
        Assert.Equal("UNREADABLE", results[7].GetProperty("reason").GetString());

        // A line that is no JSON is told by itself, too; a batch that is none is not counted at all.
        var lines = (await gateway.SendAsync(HttpMethod.Post, Events, $"{Event("l1", account)}\n{{\"specversion\n{Event("l2", account)}\n", contentType: UsageApi.Lines)).Ok();
        Assert.Equal((2, 1), (lines.GetProperty("accepted").GetInt32(), lines.GetProperty("rejected").GetInt32()));
        Assert.Contains("Nothing of it was counted", (await gateway.SendAsync(HttpMethod.Post, Events, $"[{Event("b1", account)},{{]", contentType: UsageApi.Batch))
            .Problem(HttpStatusCode.BadRequest, "malformed-body"), StringComparison.Ordinal);
        (await gateway.SendAsync(HttpMethod.Post, Events, Event("b1", account), contentType: UsageApi.Batch)).Problem(HttpStatusCode.BadRequest, "malformed-body");
        (await gateway.SendAsync(HttpMethod.Post, Events, Event("b1", account))).Problem(HttpStatusCode.UnsupportedMediaType, "unsupported-media-type");
        (await gateway.SendAsync(HttpMethod.Post, Events, Event("b1", account), contentType: "text/plain")).Problem(HttpStatusCode.UnsupportedMediaType, "unsupported-media-type");
        Assert.Equal(4 * Price, await CostAsync(account));
    }

    [Fact]
    public async Task A_batch_of_too_many_is_refused_whole_and_as_many_lines_are_taken()
    {
        var account = await OpenAsync("1000");
        var gateway = server.As("ops", "ADMIN");
        var many = Enumerable.Range(0, TokenMeter.MaxBatch + 1).Select(i => Event(i.ToString(CultureInfo.InvariantCulture), account)).ToArray();
        Assert.Contains("at most 10000 events", (await gateway.SendAsync(HttpMethod.Post, Events, $"[{string.Join(",", many)}]", contentType: UsageApi.Batch))
            .Problem(HttpStatusCode.BadRequest, "malformed-body"), StringComparison.Ordinal);
        Assert.Equal(0, await CostAsync(account));
        Assert.Equal(many.Length, (await gateway.SendAsync(HttpMethod.Post, Events, string.Join("\n", many), contentType: UsageApi.Lines)).Ok().GetProperty("accepted").GetInt32());
        Assert.Equal(many.Length * Price, await CostAsync(account));
        var blank = string.Concat(Enumerable.Repeat("{}\n", UsageApi.MostLines));
        Assert.Equal(UsageApi.MostLines, (await gateway.SendAsync(HttpMethod.Post, Events, blank, contentType: UsageApi.Lines)).Ok().GetProperty("rejected").GetInt32());
        // What came before the line that is one too many was counted, as the answer says, and the caller can go on.
        Assert.Contains("at most 100000 lines", (await gateway.SendAsync(HttpMethod.Post, Events, $"{Event("first", account)}\n{blank}", contentType: UsageApi.Lines))
            .Problem(HttpStatusCode.BadRequest, "malformed-body"), StringComparison.Ordinal);
        (await gateway.SendAsync(HttpMethod.Post, Events, Event("first", account), contentType: UsageApi.One)).IsExactly(
            """{"accepted":0,"duplicate":1,"rejected":0,"results":[{"id":"first","status":"DUPLICATE"}]}""");
        // One that asks first is spared the sending.
        using var large = new HttpRequestMessage(HttpMethod.Post, new Uri(server.Address, Events)) { Content = new ByteArrayContent(new byte[UsageApi.LargestBodyBytes + 1]) };
        (large.Headers.Authorization, large.Headers.ExpectContinue) = (new AuthenticationHeaderValue("Bearer", WebServer.Token("ops", "ADMIN")), true);
        large.Content.Headers.ContentType = new MediaTypeHeaderValue(UsageApi.Batch);
        using var refused = await Http.SendAsync(large, Cancellation);
        new Answer(refused.StatusCode, refused.Content.Headers.ContentType?.MediaType ?? "", await refused.Content.ReadAsStringAsync(Cancellation), refused.Headers)
            .Problem(HttpStatusCode.RequestEntityTooLarge, "body-too-large");
        // A line without an end is told by itself, and takes no memory.
        foreach (var padding in (int[])[100_000, 20_000_000])
        {
            var lines = (await gateway.SendAsync(HttpMethod.Post, Events, $"{Event($"before-{padding}", account)}\n{new string(' ', padding)}{Event("x", account)}\n{Event($"after-{padding}", account)}",
                contentType: UsageApi.Lines)).Ok();
            Assert.Equal((2, 1), (lines.GetProperty("accepted").GetInt32(), lines.GetProperty("rejected").GetInt32()));
            Assert.Contains("more than 65536 bytes", lines.GetProperty("results")[1].GetProperty("detail").GetString(), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Usage_is_reported_by_those_who_may_for_any_account()
    {
        var account = await OpenAsync("10");
        (await server.As(account).SendAsync(HttpMethod.Post, Events, Event("1", account), contentType: UsageApi.One)).Problem(HttpStatusCode.Forbidden, "scope-missing");
        (await server.WithToken(null).SendAsync(HttpMethod.Post, Events, Event("1", account), contentType: UsageApi.One)).Problem(HttpStatusCode.Unauthorized, "unauthenticated");
        var key = await GatewayKeyAsync();
        (await key.SendAsync(HttpMethod.Post, Events, Event("1", account), contentType: UsageApi.One)).Ok();
        (await key.GetAsync($"/v1/billing/standing?userId={account}")).Ok();
        (await key.GetAsync($"/v1/billing/balance?userId={account}")).Problem(HttpStatusCode.Forbidden, "scope-missing");
        (await server.As(account).GetAsync("/v1/billing/standing")).Ok();
        (await server.As(await server.OpenAccountAsync()).GetAsync($"/v1/billing/standing?userId={account}")).Problem(HttpStatusCode.Forbidden, "not-your-account", "userId");
    }

    [Fact]
    public async Task A_gateway_is_told_what_is_left_and_402_from_zero_on()
    {
        var account = await OpenAsync("1");
        var key = await GatewayKeyAsync();
        var left = await key.GetAsync($"/v1/billing/standing?userId={account}");
        Assert.Equal("1", left.Ok().GetProperty("remaining").GetProperty("units").GetString());
        Assert.Equal("private, max-age=1", left.Headers.CacheControl?.ToString().Replace("max-age=1, private", "private, max-age=1", StringComparison.Ordinal));

        (await key.SendAsync(HttpMethod.Post, Events, Event("1", account, input: 1_000_000, output: 1_000_000), contentType: UsageApi.One)).Ok();
        var used = await key.GetAsync($"/v1/billing/standing?userId={account}");
        Assert.Contains("used up its balance", used.Problem(HttpStatusCode.PaymentRequired, "balance-exhausted"), StringComparison.Ordinal);
        Assert.Equal("-1.999784", used.Json.GetProperty("remaining").GetString());
        Assert.Contains("max-age=1", used.Headers.CacheControl!.ToString(), StringComparison.Ordinal);
        (await server.As("ops", "ADMIN").AddBalanceAsync(account, "5")).Ok();
        Assert.Equal("3", (await key.GetAsync($"/v1/billing/standing?userId={account}")).Ok().GetProperty("remaining").GetProperty("units").GetString());
        (await key.GetAsync("/v1/billing/standing?userId=nobody-at-all")).Problem(HttpStatusCode.NotFound, "account-unknown");
    }

    [Fact]
    public async Task Metrics_tell_of_events_and_tokens_by_model_and_outcome_and_of_what_waits_for_a_price()
    {
        var account = await OpenAsync("10");
        var metrics = new Uri($"http://127.0.0.1:{FreePorts.Take(1)[0]}/");
        var host = await server.StartAnotherAsync($"--Tensormesh:MetricsUrl={metrics.GetLeftPart(UriPartial.Authority)}", "--Tensormesh:UsageSeconds=1");
        Task<string> ScrapeAsync() => Http.GetStringAsync(new Uri(metrics, "metrics"), Cancellation);
        // It knows the models that have a price.
        await Eventually.SeeAsync(ScrapeAsync, text => text.Contains("tensormesh_usage_unpriced_models ", StringComparison.Ordinal));
        await Eventually.SeeAsync(async () =>
        {
            var probe = Event(Guid.NewGuid().ToString(), account);
            (await server.As("ops", "ADMIN", host).SendAsync(HttpMethod.Post, Events, probe, contentType: UsageApi.One)).Ok();
            return await ScrapeAsync();
        }, text => text.Contains($$"""tensormesh_usage_events_total{model="{{Model}}",outcome="accepted"}""", StringComparison.Ordinal));
        string[] lines =
        [
            Event("m1", account), Event("m1", account), Event("m2", account).Replace("\"cachedTokens\":400", "\"cachedTokens\":4000", StringComparison.Ordinal),
            Event("m3", account).Replace(Model, $"unpriced/{account}", StringComparison.Ordinal), "{}",
        ];
        (await server.As("ops", "ADMIN", host).SendAsync(HttpMethod.Post, Events, string.Join("\n", lines), contentType: UsageApi.Lines)).Ok();
        var seen = await Eventually.SeeAsync(ScrapeAsync, text => !text.Contains("tensormesh_usage_unpriced_events 0", StringComparison.Ordinal));
        foreach (var line in (string[])
        [
            $$"""tensormesh_usage_events_total{model="{{Model}}",outcome="duplicate"} 1""", $$"""tensormesh_usage_events_total{model="{{Model}}",outcome="CachedAboveInput"} 1""",
            """tensormesh_usage_events_total{model="other",outcome="unpriced"} 1""", """tensormesh_usage_events_total{model="other",outcome="Unreadable"} 1""",
            """tensormesh_usage_tokens_total{model="other",type="input"} """, $$"""tensormesh_usage_tokens_total{model="{{Model}}",type="cached"} """,
            "tensormesh_usage_requests_refused_total 0",
        ])
        {
            Assert.Contains(line, seen, StringComparison.Ordinal);
        }

        Assert.Matches("(?m)^tensormesh_usage_ingest_seconds_count [1-9]", seen);
        Assert.Matches("(?m)^tensormesh_usage_delay_seconds_count [1-9]", seen);
        Assert.DoesNotContain("unpriced/", seen, StringComparison.Ordinal);
        await server.Services.GetRequiredService<Prices>().PublishAsync(
            $"book-{account}", new Dictionary<GpuProduct, Money>(), [new($"unpriced/{account}", new(1_000_000), new(1), new(1))], DateTimeOffset.UtcNow, Cancellation);
        await Eventually.SeeAsync(ScrapeAsync, text => text.Contains("tensormesh_usage_unpriced_models 0", StringComparison.Ordinal));
    }

    [Fact]
    public async Task From_the_request_to_the_posting_is_one_trace()
    {
        var account = await OpenAsync("10");
        var (trace, spans) = (System.Diagnostics.ActivityTraceId.CreateRandom(), new System.Collections.Concurrent.ConcurrentQueue<System.Diagnostics.Activity>());
        using var listener = new System.Diagnostics.ActivityListener
        {
            ShouldListenTo = source => source.Name is BillingTrace.SourceName or "Microsoft.AspNetCore",
            Sample = (ref System.Diagnostics.ActivityCreationOptions<System.Diagnostics.ActivityContext> _) => System.Diagnostics.ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = spans.Enqueue,
        };
        System.Diagnostics.ActivitySource.AddActivityListener(listener);
        using var request = new HttpRequestMessage(HttpMethod.Post, new Uri(server.Address, Events)) { Content = new StringContent(Event("1", account), Encoding.UTF8, UsageApi.One) };
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", WebServer.Token("ops", "ADMIN"));
        request.Headers.Add("traceparent", $"00-{trace}-{System.Diagnostics.ActivitySpanId.CreateRandom()}-01");
        using (var response = await Http.SendAsync(request, Cancellation)) Assert.True(response.IsSuccessStatusCode);
        Assert.Equal(1, (await server.Services.GetRequiredService<Meter>().SettleAsync(new(account), DateTimeOffset.UtcNow, Cancellation)).TokenTransactions);

        var mine = spans.Where(span => span.TraceId == trace).ToDictionary(span => span.OperationName);
        Assert.Equal(mine["Microsoft.AspNetCore.Hosting.HttpRequestIn"].SpanId, mine["ingest usage"].ParentSpanId);
        Assert.Equal(mine["ingest usage"].SpanId, mine["post usage"].ParentSpanId);
    }

    [Fact]
    public async Task Spans_are_sent_to_the_collector_that_is_named()
    {
        var bodies = new System.Collections.Concurrent.ConcurrentQueue<byte[]>();
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        await using var collector = builder.Build();
        collector.Urls.Add("http://127.0.0.1:0");
        collector.MapPost("/v1/traces", async (HttpRequest request) =>
        {
            using var body = new MemoryStream();
            await request.Body.CopyToAsync(body);
            bodies.Enqueue(body.ToArray());
        });
        await collector.StartAsync(Cancellation);
        var traced = await server.StartAnotherAsync($"--OTEL_EXPORTER_OTLP_ENDPOINT={collector.Urls.Single()}", "--OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "--OTEL_BSP_SCHEDULE_DELAY=100");
        var account = await OpenAsync("10");
        (await server.As("ops", "ADMIN", traced).SendAsync(HttpMethod.Post, Events, Event("1", account), contentType: UsageApi.One)).Ok();
        await Eventually.SeeAsync(() => Task.FromResult(bodies.ToArray()), all => all.Any(body => body.AsSpan().IndexOf("ingest usage"u8) >= 0));
        Assert.Contains(bodies, body => body.AsSpan().IndexOf("tensormesh-web"u8) >= 0);
    }

    [Fact]
    public async Task More_than_can_be_worked_on_is_told_to_come_again_and_loses_nothing()
    {
        var account = await OpenAsync("10");
        var queue = server.Services.GetRequiredService<IngestionQueue>();
        var turns = await Task.WhenAll(Enumerable.Range(0, IngestionQueue.AtOnce).Select(_ => queue.EnterAsync(Cancellation)));
        var waiting = Enumerable.Range(0, IngestionQueue.MostWaiting).Select(_ => queue.EnterAsync(Cancellation)).ToArray();
        var refused = await server.As("ops", "ADMIN").SendAsync(HttpMethod.Post, Events, Event("1", account), contentType: UsageApi.One);
        Assert.Contains("send it again", refused.Problem(HttpStatusCode.TooManyRequests, "too-many-requests"), StringComparison.Ordinal);
        Assert.Equal(TimeSpan.FromSeconds(1), refused.Headers.RetryAfter?.Delta);
        foreach (var turn in turns) turn!.Dispose();
        foreach (var turn in waiting) (await turn)!.Dispose();
        (await server.As("ops", "ADMIN").SendAsync(HttpMethod.Post, Events, Event("1", account), contentType: UsageApi.One)).Ok();
        Assert.Equal(Price, await CostAsync(account));
    }

    [Fact]
    public async Task Two_servers_that_take_the_same_batches_at_once_count_each_event_once()
    {
        var account = await OpenAsync("100");
        var another = await server.StartAnotherAsync();
        var batches = Enumerable.Range(0, 8).Select(i => $"[{string.Join(",", Enumerable.Range(i * 50, 200).OrderBy(_ => Guid.NewGuid())
            .Select(id => Event(id.ToString(CultureInfo.InvariantCulture), account)))}]").ToArray();
        var answers = await Task.WhenAll(batches.SelectMany(batch => (Task<Answer>[])
        [
            server.As("ops", "ADMIN").SendAsync(HttpMethod.Post, Events, batch, contentType: UsageApi.Batch),
            server.As("ops", "ADMIN", another).SendAsync(HttpMethod.Post, Events, batch, contentType: UsageApi.Batch),
        ]));
        Assert.Equal((550, 2650), (answers.Sum(answer => answer.Ok().GetProperty("accepted").GetInt32()), answers.Sum(answer => answer.Ok().GetProperty("duplicate").GetInt32())));
        Assert.Equal(550 * Price, await CostAsync(account));
    }

    [Fact]
    public async Task Prices_of_tokens_are_listed_and_transactions_show_a_months_usage_as_one_row()
    {
        var account = await OpenAsync("10");
        var gateway = server.As("ops", "ADMIN");
        var price = (await server.As(account).GetAsync("/v1/billing/serverless-pricing")).Ok().GetProperty("pricing").EnumerateArray()
            .Single(one => one.GetProperty("model").GetString() == Model);
        Assert.Equal("600000000", price.GetProperty("inputPrice").GetProperty("nanos").GetRawText());
        var meter = server.Services.GetRequiredService<Meter>();
        foreach (var id in (string[])["1", "2", "3"])
        {
            (await gateway.SendAsync(HttpMethod.Post, Events, Event(id, account), contentType: UsageApi.One)).Ok();
            Assert.Equal(1, (await meter.SettleAsync(new(account), DateTimeOffset.UtcNow, Cancellation)).TokenTransactions);
        }

        var rows = (await server.As(account).GetAsync("/v1/billing/transactions")).Ok().GetProperty("transactions").EnumerateArray().ToArray();
        Assert.Equal(["TRANSACTION_TYPE_SERVERLESS_USAGE", "TRANSACTION_TYPE_CREDIT_GRANT"], rows.Select(row => row.GetProperty("type").GetString()));
        Assert.Equal((-3 * Price).ToString(CultureInfo.InvariantCulture), rows[0].GetProperty("amount").GetProperty("nanos").GetRawText());
        var model = rows[0].GetProperty("details").GetProperty("models")[0];
        Assert.Equal((Model, 3000L, 1200L, 300L), (model.GetProperty("model").GetString(), model.GetProperty("inputTokens").GetInt64(),
            model.GetProperty("cachedTokens").GetInt64(), model.GetProperty("outputTokens").GetInt64()));
        var month = rows[0].GetProperty("details").GetProperty("month").GetString()!;
        Assert.Equal(month, rows[0].GetProperty("month").GetString());
        Assert.Equal(3 * Price, -(await server.As(account).GetAsync($"/v1/billing/transactions/{rows[0].GetProperty("transactionId").GetString()}")).Ok()
            .GetProperty("transaction").GetProperty("amount").GetProperty("nanos").GetInt64());

        // The statement, the export of charges and the list have one sum, and the export a row for each settlement's model.
        var csv = (await server.As(account).GetAsync($"/v1/billing/charges:export?month={month}")).Text.Trim().Split('\n');
        Assert.Equal(3, csv.Count(line => line.Contains("Serverless Inference", StringComparison.Ordinal) && line.Contains(Model, StringComparison.Ordinal) && line.Contains("Tokens", StringComparison.Ordinal)));
        Assert.Equal(3 * Price, csv.Skip(1).Sum(line => (long)(decimal.Parse(line.Split(',')[0], CultureInfo.InvariantCulture) * 1_000_000_000)));
    }

    /// <summary>Of <see cref="Event"/>, in nanos.</summary>
    private const long Price = 600 * 600 + 400 * 60 + 100 * 2400;

    private async Task<string> OpenAsync(string dollars)
    {
        var prices = server.Services.GetRequiredService<Prices>();
        await prices.PublishAsync(
            "usage-tests", new Dictionary<GpuProduct, Money>(), [new(Model, Money.Parse("0.60"), Money.Parse("2.40"), Money.Parse("0.06"))], DateTimeOffset.UtcNow, Cancellation);
        var account = await server.OpenAccountAsync();
        (await server.As("ops", "ADMIN").AddBalanceAsync(account, dollars)).Ok();
        return account;
    }

    private async Task<WebClient> GatewayKeyAsync()
    {
        var made = await server.As(await server.OpenAccountAsync(), "ADMIN").PostAsync("/v1/users/api-keys", """{"name":"gateway","scopes":["usage:write"]}""");
        return server.WithToken(made.Ok().GetProperty("apiKey").GetProperty("key").GetString());
    }

    private async Task<long> CostAsync(string account)
    {
        var cost = (await server.As(account).GetAsync("/v1/billing/serverless-usage")).Ok().GetProperty("totalCost");
        return long.Parse(cost.GetProperty("units").GetString()!, CultureInfo.InvariantCulture) * 1_000_000_000 + cost.GetProperty("nanos").GetInt64();
    }

    private static string Now() => DateTimeOffset.UtcNow.ToString("yyyy-MM-dd'T'HH:mm:ss.ffffff'Z'", CultureInfo.InvariantCulture);

    private static string Event(string id, string account, long input = 1000, long output = 100)
        => $$$"""{"specversion":"1.0","id":"{{{id}}}","source":"/inference/{{{account}}}","type":"{{{CloudEventReader.EventType}}}","time":"{{{Now()}}}","datacontenttype":"application/json","traceparent":"00-1-1-00","data":{"account":"{{{account}}}","model":"{{{Model}}}","inputTokens":{{{input}}},"cachedTokens":400,"outputTokens":{{{output}}},"requestId":"req-{{{id}}}","apiKeyId":null}}""";

    private async Task<Answer> BinaryAsync(string id, string account)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, new Uri(server.Address, Events));
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", WebServer.Token("ops", "ADMIN"));
        foreach (var (name, value) in ((string, string)[])[("specversion", "1.0"), ("id", id), ("source", $"%2Finference%2F{account}"), ("type", CloudEventReader.EventType), ("time", Now())])
        {
            request.Headers.Add($"ce-{name}", value);
        }

        request.Content = new StringContent(JsonDocument.Parse(Event(id, account)).RootElement.GetProperty("data").GetRawText(), Encoding.UTF8, "application/json");
        using var response = await Http.SendAsync(request, Cancellation);
        return new Answer(response.StatusCode, response.Content.Headers.ContentType?.MediaType ?? "", await response.Content.ReadAsStringAsync(Cancellation), response.Headers);
    }
}
