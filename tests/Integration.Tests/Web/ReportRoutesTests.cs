using System.Net;

namespace Tensormesh.Integration.Tests.Web;

[Collection(WebSuite.Name)]
public sealed class ReportRoutesTests(WebServer server)
{
    private readonly WebServer server = server;
    private readonly WebClient admin = server.As("ops", "ADMIN");

    [Fact]
    public async Task Statements_are_json_and_a_page_to_print()
    {
        var account = await server.OpenAccountAsync();
        (await admin.AddBalanceAsync(account, "5")).Ok();
        var customer = server.As(account);
        var statement = (await customer.GetAsync("/v1/billing/statements")).Ok().GetProperty("statements")[0];
        Assert.Equal("STATEMENT_STATE_OPEN", statement.GetProperty("state").GetString());
        Assert.Equal("""{"currencyCode":"USD","units":"5","nanos":0}""", statement.GetProperty("closingBalance").GetRawText());
        var path = $"/v1/billing/statements/{statement.GetProperty("month").GetString()}";
        Assert.Equal(statement.GetRawText(), (await customer.GetAsync(path)).Ok().GetProperty("statement").GetRawText());
        var page = await customer.GetAsync($"{path}:print");
        Assert.Equal((HttpStatusCode.OK, "text/html"), (page.Status, page.MediaType));
        Assert.Contains("<td>Credit grant</td>", page.Text, StringComparison.Ordinal);
        (await customer.GetAsync("/v1/billing/statements/2001-01")).Problem(HttpStatusCode.NotFound, "statement-unknown");
        (await customer.GetAsync("/v1/billing/statements/soon")).Problem(HttpStatusCode.BadRequest, "invalid-field", "month");
    }

    [Fact]
    public async Task Exports_are_files_of_csv()
    {
        var account = await server.OpenAccountAsync();
        (await admin.AddBalanceAsync(account, "5")).Ok();
        var customer = server.As(account);
        var month = (await customer.GetAsync("/v1/billing/statements")).Ok().GetProperty("statements")[0].GetProperty("month").GetString();
        var transactions = await customer.GetAsync($"/v1/billing/transactions:export?month={month}");
        Assert.Equal((HttpStatusCode.OK, "text/csv"), (transactions.Status, transactions.MediaType));
        Assert.StartsWith("TransactionId,Type,", transactions.Text, StringComparison.Ordinal);
        Assert.Equal(2, transactions.Text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        var charges = await customer.GetAsync($"/v1/billing/charges:export?month={month}");
        Assert.Equal((HttpStatusCode.OK, "text/csv"), (charges.Status, charges.MediaType));
        Assert.StartsWith("BilledCost,BillingAccountId,", charges.Text, StringComparison.Ordinal);
        (await customer.GetAsync("/v1/billing/charges:export")).Problem(HttpStatusCode.BadRequest, "invalid-field", "month");
        (await customer.GetAsync("/v1/billing/transactions:export?month=2026")).Problem(HttpStatusCode.BadRequest, "invalid-field", "month");
    }

    [Theory]
    [InlineData("overview")]
    [InlineData("spending/history")]
    [InlineData("transactions/txn_1")]
    [InlineData("transactions:export?month=2026-03")]
    [InlineData("charges:export?month=2026-03")]
    [InlineData("statements")]
    [InlineData("statements/2026-03")]
    [InlineData("statements/2026-03:print")]
    public async Task No_report_of_another_account_is_given(string path)
    {
        var (account, other) = (await server.OpenAccountAsync(), await server.OpenAccountAsync());
        var separator = path.Contains('?', StringComparison.Ordinal) ? '&' : '?';
        (await server.As(account).GetAsync($"/v1/billing/{path}{separator}userId={other}")).Problem(HttpStatusCode.Forbidden, "not-your-account", "userId");
        (await server.As(account).GetAsync($"/v1/billing/{path}{separator}userId=nobody")).Problem(HttpStatusCode.Forbidden, "not-your-account", "userId");
        (await admin.GetAsync($"/v1/billing/{path}{separator}userId=nobody")).Problem(HttpStatusCode.NotFound, "account-unknown");
        (await server.WithToken(null).GetAsync($"/v1/billing/{path}")).Problem(HttpStatusCode.Unauthorized, "unauthenticated");
    }
}
