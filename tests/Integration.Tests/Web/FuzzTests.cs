using System.Collections;
using System.Net;
using System.Net.Http.Headers;
using System.Reflection;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Web;

/// <summary>A server with every route that there is, in which nothing happens by itself.</summary>
public sealed class FuzzServer : WebServer
{
    private readonly Uri metrics = new($"http://127.0.0.1:{FreePorts.Take(1)[0]}/");
    private FakeStripe stripe = null!;

    protected override IReadOnlyList<string> Settings =>
    [
        "--Tensormesh:Payments:Provider=Stripe", $"--Tensormesh:Payments:StripeSecretKey={FakeStripe.SecretKey}",
        $"--Tensormesh:Payments:StripeApiBase={stripe.Address}", $"--Tensormesh:Payments:StripeWebhookSecret={FakeStripe.WebhookSecret}",
        "--Tensormesh:Payments:ReconcileSeconds=86400", "--Tensormesh:AutoTopUpSeconds=86400", "--Tensormesh:UsageSeconds=86400",
        "--Tensormesh:RequestsPerSecond=100000", "--Tensormesh:RequestBurst=100000", $"--Tensormesh:MetricsUrl={metrics.GetLeftPart(UriPartial.Authority)}",
    ];

    public override async ValueTask InitializeAsync()
    {
        stripe = await FakeStripe.StartAsync(TimeProvider.System);
        await base.InitializeAsync();
        // What is done once at the start is over.
        using var http = new HttpClient();
        await Eventually.SeeAsync(() => http.GetStringAsync(new Uri(metrics, "metrics")), text =>
            text.Contains("tensormesh_auto_top_up_accounts{", StringComparison.Ordinal)
            && !text.Contains("tensormesh_payments_reconciled_timestamp_seconds 0", StringComparison.Ordinal));
    }

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        await stripe.DisposeAsync();
    }
}

/// <summary>
/// Rubbish on every route that there is, found by asking the server for its routes: whatever is refused is refused as a problem, never as a
/// fault of ours, says nothing of our insides, and changes no row.
/// </summary>
public sealed class FuzzTests(FuzzServer server) : IClassFixture<FuzzServer>
{
    private const int RequestsPerRoute = 40;

    private static readonly string[] Words =
    [
        "", " ", "0", "-1", "1", "20", "101", "99999999999999999999", "1e9", "NaN", "true", "null", "USD", "EUR", "2026-03", "2026-13", "0000-00", "2026-03-01T00:00:00Z",
        "9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "pm_card_visa", "txn_none", "key_none", "cus_none", "billing:read", "usage:write",
        "'; drop table account; --", "\" or 1=1", "%00", "\u0000", "\u202e\ufeff", "\ud83d\ude80", "../../etc/passwd", "{0}", "<script>", "é", new('x', 300), new('9', 40), "a\nb",
        "AAAAAAAAAAAAAAAAAAAA", "TRANSACTION_TYPE_TOP_UP", "AUDIT_ACTION_BALANCE_ADDED", "GPU_TYPE_H100",
    ];

    private static readonly string[] QueryNames =
        ["userId", "pageSize", "pageToken", "type", "from", "until", "month", "activeOnly", "gpuType", "cloudProvider", "includeDeleted", "targetUserId", "actor", "action", "x"];

    private static readonly string[] MediaTypes = ["text/plain", "application/xml", "application/json; charset=utf-7", "application/json;;", "json", "application/x-www-form-urlencoded"];

    /// <summary>What no answer may tell.</summary>
    private static readonly string[] Insides = ["   at ", "Exception", "Npgsql", "SELECT ", "select ", "Tensormesh.Web", "Tensormesh.Billing", ".cs:", "/src/", "sk_test", "whsec_"];

    private readonly FuzzServer server = server;
    private static readonly HttpClient Http = new();

    [Fact]
    public async Task Rubbish_on_any_route_is_refused_without_a_fault_of_ours_and_changes_no_row()
    {
        var seed = int.TryParse(Environment.GetEnvironmentVariable("TENSORMESH_SEED"), out var given) ? given : Random.Shared.Next();
        var random = new Random(seed);
        var account = await server.OpenAccountAsync();
        var routes = server.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .SelectMany(route => route.Metadata.GetRequiredMetadata<HttpMethodMetadata>().HttpMethods, (route, method) => (Route: route, Method: method))
            .OrderBy(each => $"{each.Route.RoutePattern.RawText} {each.Method}", StringComparer.Ordinal).ToArray();
        Assert.True(routes.Length >= 30, $"only {routes.Length} routes");
        var document = await ApiDocument.ReadAsync(server);
        string?[] tokens = [WebServer.Token(account, "USER"), WebServer.Token("ops", "ADMIN"), null];
        var (refused, before) = (0, await DigestAsync());
        foreach (var (route, method) in routes)
        {
            for (var i = 0; i < RequestsPerRoute; i++)
            {
                using var request = MakeRequest(random, route, method, account, tokens[random.Next(10) is 0 ? 2 : random.Next(2)]);
                var told = $"TENSORMESH_SEED={seed} {method} {request.RequestUri} {(request.Content is { } sent ? Encoding.UTF8.GetString(await sent.ReadAsByteArrayAsync(Cancellation)) : "")}";
                using var response = await Http.SendAsync(request, Cancellation);
                var text = await response.Content.ReadAsStringAsync(Cancellation);
                Assert.True((int)response.StatusCode < 500, $"{told}\n{(int)response.StatusCode} {text}");
                if (route.Metadata.GetMetadata<IExcludeFromDescriptionMetadata>() is null)
                {
                    var why = document.WhyUndocumented(
                        method, route.RoutePattern.RawText!.TrimEnd('/'), (int)response.StatusCode, response.Content.Headers.ContentType?.MediaType ?? "", text);
                    Assert.True(why is null, $"{told}\n{(int)response.StatusCode} {text}\n{why}");
                    Assert.True(
                        !response.Headers.Contains("Idempotency-Key")
                        || ApiDocument.Parameters(document.Find(method, route.RoutePattern.RawText!.TrimEnd('/'))!, "header").Contains("Idempotency-Key"), told);
                }

                var after = await DigestAsync();
                if ((int)response.StatusCode >= 400)
                {
                    refused++;
                    Assert.True(response.Content.Headers.ContentType?.MediaType == "application/problem+json", $"{told}\n{response.Content.Headers.ContentType} {text}");
                    Assert.True(JsonDocument.Parse(text).RootElement.GetProperty("traceId").GetString()!.Length == 32, $"{told}\n{text}");
                    // What was sent may come back in the detail.
                    Assert.True(Insides.All(inside => !text.Contains(inside, StringComparison.Ordinal) || told.Contains(inside, StringComparison.Ordinal)), $"{told}\n{text}");
                    Assert.True(before == after, $"{told}\n{(int)response.StatusCode} {text}\nchanged rows:\n{before}\n{after}");
                }

                before = after;
            }
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"TENSORMESH_SEED={seed}: {refused} refused of {routes.Length * RequestsPerRoute}");
        Assert.True(refused > routes.Length * RequestsPerRoute / 2, $"only {refused} of {routes.Length * RequestsPerRoute} were refused: this tests little");
    }

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private HttpRequestMessage MakeRequest(Random random, RouteEndpoint route, string method, string account, string? token)
    {
        string Word() => random.Next(4) == 0 ? account : Words[random.Next(Words.Length)];
        var path = string.Join('/', route.RoutePattern.RawText!.Split('/').Select(part =>
            part.StartsWith('{') ? Uri.EscapeDataString(InPath(Word())) + part[(part.IndexOf('}', StringComparison.Ordinal) + 1)..] : part));
        var query = string.Join('&', Enumerable.Range(0, random.Next(4)).Select(_ => $"{QueryNames[random.Next(QueryNames.Length)]}={Uri.EscapeDataString(Word())}"));
        var request = new HttpRequestMessage(new HttpMethod(method), $"{server.Address.GetLeftPart(UriPartial.Authority)}{path}{(query.Length > 0 ? "?" + query : "")}");
        if (token is not null) request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
        if (random.Next(3) == 0) request.Headers.TryAddWithoutValidation("Idempotency-Key", random.Next(2) == 0 ? "one" : new string('k', random.Next(1, 300)));
        if (random.Next(4) == 0) request.Headers.TryAddWithoutValidation("Stripe-Signature", random.Next(2) == 0 ? "t=1,v1=00" : "rubbish");
        if (method is "POST" or "PUT" or "PATCH" && random.Next(12) > 0)
        {
            request.Content = new ByteArrayContent(Body(random, route, Word));
            request.Content.Headers.TryAddWithoutValidation("Content-Type", random.Next(12) == 0 ? MediaTypes[random.Next(MediaTypes.Length)] : "application/json");
        }

        return request;
    }

    /// <summary>A path with a NUL is refused by the web server before any route sees it.</summary>
    private static string InPath(string word) => word.Replace("\0", "", StringComparison.Ordinal) is { Length: > 0 } rest ? rest : "x";

    /// <summary>Mostly an object with the members that the route knows and values of any kind; now and then what is no JSON at all.</summary>
    private static byte[] Body(Random random, RouteEndpoint route, Func<string> word)
    {
        var type = route.Metadata.GetMetadata<IAcceptsMetadata>()?.RequestType;
        var json = Value(random, type, word, 0)?.ToJsonString() ?? "null";
        return random.Next(12) switch
        {
            0 => Encoding.UTF8.GetBytes(json[..random.Next(json.Length)]),
            1 => [.. Encoding.UTF8.GetBytes(json), 0xff, 0xc3],
            2 => Encoding.UTF8.GetBytes(new string('[', random.Next(1, 200))),
            3 => Encoding.UTF8.GetBytes(json.Insert(random.Next(json.Length), word())),
            _ => Encoding.UTF8.GetBytes(json),
        };
    }

    private static JsonNode? Value(Random random, Type? type, Func<string> word, int depth)
    {
        if (depth > 4 || random.Next(4) == 0) return Anything(random, word, depth);
        type = type is null ? null : Nullable.GetUnderlyingType(type) ?? type;
        if (type is null || type == typeof(string)) return JsonValue.Create(word());
        if (type.IsPrimitive) return Number(random);
        if (type.IsAssignableTo(typeof(IEnumerable)))
        {
            return new JsonArray([.. Enumerable.Range(0, random.Next(4)).Select(_ => Value(random, type.GetGenericArguments().FirstOrDefault(), word, depth + 1))]);
        }

        var members = new JsonObject();
        foreach (var property in type.GetProperties(BindingFlags.Public | BindingFlags.Instance).Where(each => each.GetIndexParameters().Length == 0 && random.Next(6) > 0))
        {
            members[JsonNamingPolicy.CamelCase.ConvertName(property.Name)] = property.Name == "CurrencyCode" && random.Next(3) > 0
                ? JsonValue.Create("USD")
                : Value(random, property.PropertyType, word, depth + 1);
        }

        return members;
    }

    private static JsonNode? Anything(Random random, Func<string> word, int depth) => random.Next(depth > 4 ? 4 : 6) switch
    {
        0 => null,
        1 => Number(random),
        2 => JsonValue.Create(random.Next(2) == 0),
        3 => JsonValue.Create(word()),
        4 => new JsonArray([.. Enumerable.Range(0, random.Next(200)).Select(_ => JsonValue.Create(word()))]),
        _ => new JsonObject { [word()] = Anything(random, word, depth + 1) },
    };

    private static JsonValue Number(Random random) => random.Next(5) switch
    {
        0 => JsonValue.Create(random.NextInt64(long.MinValue, long.MaxValue)),
        1 => JsonValue.Create(random.NextDouble() * 1e20 - 5e19),
        2 => JsonValue.Create(ulong.MaxValue),
        _ => JsonValue.Create(random.Next(-2, 2_000_000_000)),
    };

    /// <summary>How many rows each table has, and a sum over them all.</summary>
    private async Task<string> DigestAsync()
    {
        var database = server.Services.GetRequiredService<NpgsqlDataSource>();
        await using var command = database.CreateCommand(
            """
            select string_agg(c.relname || ' ' || (xpath('/row/d/text()', query_to_xml(
              format('select count(*) || '':'' || coalesce(sum(hashtextextended(t::text, 0)), 0) as d from %I t', c.relname), false, true, '')))[1]::text, e'\n' order by c.relname)
            from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
            """);
        return (string)(await command.ExecuteScalarAsync(Cancellation))!;
    }
}
