using System.Net;
using System.Net.Http.Headers;
using System.Text.RegularExpressions;
using Microsoft.Playwright;
using Tensormesh.TestKit;
using static Microsoft.Playwright.Assertions;

namespace Tensormesh.Console.Tests;

/// <summary>Who gets in, and what a page elsewhere can make a browser do: nothing.</summary>
public sealed partial class SecurityTests(ConsoleFixture fixture) : ConsoleTest(fixture)
{
    private static readonly string[] Pages =
        ["/billing", "/billing/payment-methods", "/billing/transactions", "/billing/serverless-usage", "/deployments", "/accounts"];

    [Fact]
    public async Task Nobody_sees_anything_before_they_sign_in()
    {
        using var http = Http();
        foreach (var path in Pages.Concat(["/console/transactions.csv?month=2026-01", "/console/charges.csv?month=2026-01", "/console/statements/2026-01"]))
        {
            using var answer = await http.GetAsync(new Uri(Site.Address, path), Cancellation);
            Assert.Equal((path, HttpStatusCode.Redirect), (path, answer.StatusCode));
            Assert.Equal("/sign-in", answer.Headers.Location!.AbsolutePath);
            Assert.Empty(await answer.Content.ReadAsStringAsync(Cancellation));
        }

        using var negotiate = await http.PostAsync(new Uri(Site.Address, "/_blazor/negotiate?negotiateVersion=1"), null, Cancellation);
        Assert.NotEqual(HttpStatusCode.OK, negotiate.StatusCode);
    }

    [Fact]
    public async Task The_cookie_opens_the_console_alone_and_a_token_the_API_alone()
    {
        var page = await OpenAsync(SampleAccounts.Customer);
        var cookie = (await page.Context.CookiesAsync()).Single(each => each.Name == "tensormesh-session");
        Assert.True(cookie.HttpOnly);
        Assert.Equal(SameSiteAttribute.Lax, cookie.SameSite);
        using var http = Http();
        foreach (var (method, path) in new[] { (HttpMethod.Get, "/v1/billing/balance"), (HttpMethod.Post, "/v1/billing/stripe/payment-intents"), (HttpMethod.Get, "/auth/profile") })
        {
            using var request = new HttpRequestMessage(method, new Uri(Site.Address, path));
            request.Headers.Add("Cookie", $"{cookie.Name}={cookie.Value}");
            using var answer = await http.SendAsync(request, Cancellation);
            Assert.Equal((path, HttpStatusCode.Unauthorized), (path, answer.StatusCode));
        }

        using var withToken = new HttpRequestMessage(HttpMethod.Get, new Uri(Site.Address, "/billing"));
        withToken.Headers.Authorization = new AuthenticationHeaderValue("Bearer", ConsoleSite.Token(SampleAccounts.Customer, "USER"));
        using var sent = await http.SendAsync(withToken, Cancellation);
        Assert.Equal(HttpStatusCode.Redirect, sent.StatusCode);
    }

    [Fact]
    public async Task A_form_of_another_site_signs_nobody_in_or_out()
    {
        var page = await OpenAsync(SampleAccounts.Customer);
        var cookies = string.Join("; ", (await page.Context.CookiesAsync()).Select(each => $"{each.Name}={each.Value}"));
        using var http = Http();
        foreach (var path in (string[])["/sign-in", "/sign-out"])
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, new Uri(Site.Address, path))
            {
                Content = new FormUrlEncodedContent(new Dictionary<string, string> { ["account"] = "platform", ["role"] = "ADMIN/OWNER", ["leaving"] = "true" }),
            };
            request.Headers.Add("Cookie", cookies);
            using var answer = await http.SendAsync(request, Cancellation);
            Assert.Equal((path, HttpStatusCode.BadRequest), (path, answer.StatusCode));
            Assert.False(answer.Headers.Contains("Set-Cookie"), path);
        }

        await page.ReloadAsync();
        await Expect(Test(page, "balance")).ToBeVisibleAsync();
    }

    [Theory]
    [InlineData("https://evil.example/")]
    [InlineData("//evil.example/")]
    [InlineData("/\\evil.example/")]
    public async Task Signing_in_leads_nowhere_else(string returnUrl)
    {
        var context = await Fixture.Chromium.Browser.NewContextAsync();
        var page = await context.NewPageAsync();
        CloseAtTheEnd(page);
        await page.GotoAsync(new Uri(Site.Address, $"/sign-in?returnUrl={Uri.EscapeDataString(returnUrl)}").ToString());
        await page.GetByLabel("Account", new() { Exact = true }).FillAsync(SampleAccounts.Customer);
        await page.GetByRole(AriaRole.Button, new() { Name = "Sign in" }).ClickAsync();
        await ConsoleSite.ComeToAsync(page, new Uri(Site.Address, "/billing").ToString());
    }

    [Fact]
    public async Task No_page_has_script_of_its_own_or_is_shown_in_a_frame_and_none_breaks_its_own_policy()
    {
        var page = await OpenAsync("platform", "/accounts", "ADMIN/OWNER");
        var complaints = new List<string>();
        page.Console += (_, message) =>
        {
            if (message.Type is "error" or "warning") complaints.Add(message.Text);
        };
        page.PageError += (_, error) => complaints.Add(error);
        foreach (var path in Pages)
        {
            var answer = await page.GotoAsync(new Uri(Site.Address, $"{path}?account={SampleAccounts.Customer}").ToString());
            await ConsoleSite.LiveAsync(page);
            var policy = (await answer!.AllHeadersAsync())["content-security-policy"].Split(';', StringSplitOptions.TrimEntries).ToDictionary(part => part.Split(' ')[0], part => part[(part.IndexOf(' ', StringComparison.Ordinal) + 1)..]);
            Assert.Equal(("'none'", "'self'", "'none'", "'self'"), (policy["default-src"], policy["script-src"], policy["frame-ancestors"], policy["form-action"]));
            var html = await answer.TextAsync();
            Assert.All(Scripts().Matches(html), script => Assert.Contains("src=", script.Value, StringComparison.Ordinal));
            Assert.DoesNotMatch(Handlers(), html);
            Assert.Contains("no-store", (await answer.AllHeadersAsync())["cache-control"], StringComparison.Ordinal);
        }

        Assert.Empty(complaints);
        using var http = Http();
        using var script = await http.GetAsync(new Uri(Site.Address, await page.Locator("script[src*=blazor]").GetAttributeAsync("src") is { } source ? $"/{source}" : "/"), Cancellation);
        Assert.NotEqual("no-store", script.Headers.CacheControl?.ToString());
    }

    [Fact]
    public async Task A_restart_signs_nobody_out_and_signing_out_does()
    {
        await using var site = await ConsoleSite.StartAsync(ConsoleFixture.Directory(), Cancellation);
        await new SampleAccounts(site.Database).OpenAsync(new("acme"), "Acme", "UTC", Cancellation);
        var page = await site.SignInAsync(Fixture.Chromium, "acme");
        CloseAtTheEnd(page);
        await site.RestartWebAsync(Cancellation);
        await page.ReloadAsync();
        await ConsoleSite.LiveAsync(page);
        await Expect(Test(page, "balance")).ToBeVisibleAsync();
        await page.GetByRole(AriaRole.Button, new() { Name = "Sign out" }).ClickAsync();
        await ConsoleSite.ComeToAsync(page, "**/sign-in**");
        await page.GotoAsync(new Uri(site.Address, "/billing").ToString());
        await ConsoleSite.ComeToAsync(page, "**/sign-in**");
    }

    [Fact]
    public async Task People_sign_in_at_the_identity_provider_with_a_proof_and_are_who_it_says()
    {
        await using var provider = await FakeIdentityProvider.StartAsync(TimeProvider.System);
        var directory = ConsoleFixture.Directory();
        Directory.CreateDirectory(directory);
        var trust = Path.Combine(Directory.GetParent(directory)!.FullName, "provider.pem");
        await File.WriteAllTextAsync(trust, provider.AuthorityCertificate, Cancellation);
        await using var site = await ConsoleSite.StartAsync(
            directory, Cancellation,
            [$"--Tensormesh:Authority={provider.Issuer}", "--Tensormesh:Audience=billing", "--Tensormesh:Console:ClientId=console", "--Tensormesh:Payments:Provider=Sandbox"],
            [$"SSL_CERT_FILE={trust}"], provider.Certificate);
        await new SampleAccounts(site.Database).OpenAsync(new("acme"), "Acme", "UTC", Cancellation);
        provider.Person = new Dictionary<string, object> { ["sub"] = "alice@example.com", ["account"] = "acme", ["role"] = "USER", ["account_role"] = "MEMBER" };
        var page = await PageAsync();
        await page.GotoAsync(new Uri(site.Address, "/billing/payment-methods").ToString());
        await ConsoleSite.ComeToAsync(page, new Uri(site.Address, "/billing/payment-methods").ToString());
        await ConsoleSite.LiveAsync(page);
        await Expect(page.GetByText("You are a member of this account")).ToBeVisibleAsync();
        await Expect(page.Locator(".who")).ToContainTextAsync("acme");
        Assert.Equal(1, provider.SignIns);
        var session = (await page.Context.CookiesAsync()).Single(each => each.Name == "tensormesh-session");
        Assert.True(session.Secure && session.HttpOnly);
        await page.GotoAsync(new Uri(site.Address, "/sign-in").ToString());
        await Expect(page.GetByText("Development sign-in")).ToHaveCountAsync(0);

        await page.GotoAsync(new Uri(site.Address, "/billing").ToString());
        await page.GetByRole(AriaRole.Button, new() { Name = "Sign out" }).ClickAsync();
        await Expect(page.GetByText("You are signed out")).ToBeVisibleAsync();
        Assert.DoesNotContain(await page.Context.CookiesAsync(), each => each.Name == "tensormesh-session");
        await page.GetByRole(AriaRole.Link, new() { Name = "Sign in again" }).ClickAsync();
        await Expect(Test(page, "balance")).ToBeVisibleAsync();
        Assert.Equal(2, provider.SignIns);

        provider.Person = new Dictionary<string, object> { ["sub"] = "mallory@example.com", ["account"] = "acme", ["role"] = "EMPEROR" };
        var stranger = await PageAsync();
        await stranger.GotoAsync(new Uri(site.Address, "/billing").ToString());
        await Expect(stranger.Locator("body")).ToContainTextAsync("You are not signed in");
        Assert.DoesNotContain(await stranger.Context.CookiesAsync(), each => each.Name == "tensormesh-session");

        async Task<IPage> PageAsync()
        {
            var context = await Fixture.Chromium.Browser.NewContextAsync(new() { IgnoreHTTPSErrors = true });
            var opened = await context.NewPageAsync();
            CloseAtTheEnd(opened);
            return opened;
        }
    }

    private static HttpClient Http() => new(new HttpClientHandler { AllowAutoRedirect = false, UseCookies = false });

    [GeneratedRegex("<script[^>]*>", RegexOptions.IgnoreCase)]
    private static partial Regex Scripts();

    [GeneratedRegex("<[^>]+\\son[a-z]+\\s*=", RegexOptions.IgnoreCase)]
    private static partial Regex Handlers();
}
