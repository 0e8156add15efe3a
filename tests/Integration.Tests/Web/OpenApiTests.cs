using System.Net;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.OpenApi;

namespace Tensormesh.Integration.Tests.Web;

[Collection(WebSuite.Name)]
public sealed partial class OpenApiTests(WebServer server)
{
    private readonly WebServer server = server;

    [Fact]
    public async Task The_document_is_sound_and_anyone_may_read_it()
    {
        var answer = await server.WithToken(null).GetAsync("/openapi/v1.json");
        answer.Ok();
        var read = OpenApiDocument.Parse(answer.Text, "json");
        Assert.Empty(read.Diagnostic!.Errors);
        Assert.Empty(read.Diagnostic.Warnings);
    }

    [Fact]
    public async Task Every_route_is_in_it_with_its_parameters_and_nothing_else_is()
    {
        var document = await ApiDocument.ReadAsync(server);
        var mapped = server.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .Where(route => route.Metadata.GetMetadata<IExcludeFromDescriptionMetadata>() is null)
            .SelectMany(route => route.Metadata.GetRequiredMetadata<HttpMethodMetadata>().HttpMethods, (route, method) => $"{method} {route.RoutePattern.RawText!.TrimEnd('/')}");
        Assert.Equal(mapped.Order(), document.Operations.Select(each => $"{each.Method} {each.Path}").Order());
        foreach (var (method, path, operation) in document.Operations)
        {
            Assert.Equal(InPath().Matches(path).Select(each => each.Groups[1].Value), ApiDocument.Parameters(operation, "path"));
            Assert.True(operation["security"] is not null, $"{method} {path} says nothing of its token");
            Assert.All(["400", "401", "403", "429", "500", "503"], status => Assert.NotNull(operation["responses"]![status]));
            Assert.Equal(method is "GET" or "DELETE" || path.EndsWith(":default", StringComparison.Ordinal), operation["requestBody"] is null);
        }
    }

    [Fact]
    public async Task What_an_account_with_everything_is_answered_is_as_the_document_has_it()
    {
        var document = await ApiDocument.ReadAsync(server);
        var account = await server.OpenAccountAsync();
        var admin = server.As("ops", "ADMIN");
        var customer = server.As(account);
        (await admin.AddBalanceAsync(account, "7")).Ok();
        (await customer.AttachAsync("pm_card_visa")).Ok();
        (await customer.TopUpAsync("5")).Ok();
        const string five = """{"currencyCode":"USD","units":"5"}""";
        (await customer.SendAsync(HttpMethod.Put, "/v1/billing/auto-top-up", $$"""{"threshold":{{five}},"amount":{{five}},"dailyCap":{{five}},"monthlyCap":{{five}}}""")).Ok();
        (await customer.PostAsync("/v1/users/api-keys", """{"name":"ci","expiresAt":"2100-01-01T00:00:00Z"}""")).Ok();
        var transaction = (await customer.GetAsync("/v1/billing/transactions")).Ok().GetProperty("transactions")[0].GetProperty("transactionId").GetString();
        var month = $"{TimeProvider.System.GetUtcNow():yyyy-MM}";
        foreach (var (method, path, _) in document.Operations.Where(each => each.Method == "GET"))
        {
            var asked = path.Replace("{transactionId}", transaction, StringComparison.Ordinal).Replace("{month}", month, StringComparison.Ordinal);
            var answer = await (path.StartsWith("/v1/admin", StringComparison.Ordinal) ? admin : customer)
                .GetAsync(path.EndsWith(":export", StringComparison.Ordinal) ? $"{asked}?month={month}" : asked);
            Assert.True(answer.Status == HttpStatusCode.OK, $"{path}: {answer.Text}");
            Assert.Null(document.WhyUndocumented(method, path, 200, answer.MediaType, answer.Text));
        }
    }

    [Fact]
    public async Task The_page_to_try_it_comes_whole_from_this_server_and_runs_no_script_in_line()
    {
        var stranger = server.WithToken(null);
        var page = await stranger.GetAsync("/docs/index.html");
        Assert.Equal((HttpStatusCode.OK, "text/html"), (page.Status, page.MediaType));
        var policy = page.Headers.GetValues("Content-Security-Policy").Single();
        Assert.Contains("script-src 'self';", policy, StringComparison.Ordinal);
        var parts = Sources().Matches(page.Text).Select(each => each.Groups[1].Value).ToArray();
        Assert.NotEmpty(parts);
        foreach (var part in parts)
        {
            Assert.DoesNotContain("//", part, StringComparison.Ordinal);
            Assert.Equal(HttpStatusCode.OK, (await stranger.GetAsync($"/docs/{part.TrimStart('.', '/')}")).Status);
        }

        Assert.All(Scripts().Matches(page.Text).Select(each => each.Groups[1].Value), body => Assert.Equal("", body.Trim()));
    }

    [GeneratedRegex(@"\{(\w+)\}")]
    private static partial Regex InPath();

    [GeneratedRegex("""(?:src|href)="([^"]+)"(?=[^>]*>)""")]
    private static partial Regex Sources();

    [GeneratedRegex("<script[^>]*>(.*?)</script>", RegexOptions.Singleline)]
    private static partial Regex Scripts();
}
