using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>The only registration file.</summary>
public static class BillingServices
{
    /// <summary>What the driver calls the pool where it tells how full it is.</summary>
    public const string PoolName = "tensormesh-ledger";

    private const int MaxPoolSize = 40;
    private const int ConnectTimeoutSeconds = 5;
    private const int CommandTimeoutSeconds = 30;
    /// <summary>Statements that a connection keeps planned. There are about forty; planning a standing takes longer than reading it.</summary>
    private const int MaxAutoPrepare = 64;
    private const int AutoPrepareMinUsages = 2;

    /// <summary>
    /// Registers the data source (pooled, bounded), every service of this project, and, where none is registered, the sandbox payment provider
    /// and TimeProvider.System.
    /// </summary>
    public static IServiceCollection AddBilling(this IServiceCollection services, string connectionString)
    {
        services.TryAddSingleton(TimeProvider.System);
        services.TryAddSingleton<IPaymentProvider, SandboxPaymentProvider>();
        services.AddSingleton(_ => OpenDataSource(connectionString));
        services.AddSingleton<Accounts>();
        services.AddSingleton<Holds>();
        services.AddSingleton<Ledger>();
        services.AddSingleton<Corrections>();
        services.AddSingleton<CreditGrants>();
        services.AddSingleton<LedgerSeals>();
        services.AddSingleton<LedgerProof>();
        services.AddSingleton<LedgerVerifier>();
        services.AddSingleton<Meter>();
        services.AddSingleton<GpuFaults>();
        services.AddSingleton<Prices>();
        services.AddSingleton<RunIntervals>();
        services.AddSingleton<RunHistory>();
        services.AddSingleton<Transactions>();
        services.AddSingleton(provider => new TokenMeter(provider.GetRequiredService<NpgsqlDataSource>()));
        services.AddSingleton<ServerlessUsage>();
        services.AddSingleton<Spending>();
        services.AddSingleton<Statements>();
        services.AddSingleton<Exports>();
        services.AddSingleton<ApiKeys>();
        services.AddSingleton<AuditLog>();
        services.AddSingleton<RememberedRequests>();
        services.AddSingleton<Customers>();
        services.AddSingleton<PaymentEvents>();
        services.AddSingleton<PaymentMethods>();
        services.AddSingleton<PaymentMismatches>();
        services.AddSingleton<PaymentReconciliation>();
        services.AddSingleton<TopUps>();
        services.AddSingleton<AutoTopUps>();
        services.AddSingleton<BillingAddresses>();
        services.AddSingleton<SessionKeys>();
        return services;
    }

    /// <summary>
    /// A pool with bounds, and without the seven statements that would clear a session each time that it is used
    /// again: nothing here changes a session but for LISTEN, whose connection is used for nothing else. What the connection
    /// string does not say is said here.
    /// </summary>
    public static NpgsqlDataSource OpenDataSource(string connectionString)
    {
        var settings = new NpgsqlConnectionStringBuilder(connectionString);
        var said = settings.Keys.ToHashSet(StringComparer.OrdinalIgnoreCase);
        if (!said.Contains("Maximum Pool Size")) settings.MaxPoolSize = MaxPoolSize;
        if (!said.Contains("Timeout")) settings.Timeout = ConnectTimeoutSeconds;
        if (!said.Contains("Command Timeout")) settings.CommandTimeout = CommandTimeoutSeconds;
        if (!said.Contains("Max Auto Prepare")) settings.MaxAutoPrepare = MaxAutoPrepare;
        if (!said.Contains("Auto Prepare Min Usages")) settings.AutoPrepareMinUsages = AutoPrepareMinUsages;
        if (!said.Contains("No Reset On Close")) settings.NoResetOnClose = true;
        if (!said.Contains("Application Name")) settings.ApplicationName = "tensormesh";
        var source = new NpgsqlDataSourceBuilder(settings.ConnectionString) { Name = PoolName };
        // Where a pooler may stand in between, whether statements can be prepared is not ours to guess.
        if (!said.Contains("Max Auto Prepare")) source.UsePhysicalConnectionInitializer(Poolers.Refuse, Poolers.RefuseAsync);
        return source.Build();
    }
}
